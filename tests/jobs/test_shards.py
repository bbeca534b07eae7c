"""Parts of a study: even, each with its share of seeds and conditions, and together all of it, once."""

import json
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.config.study_launch import Shard, StudyLaunch, shard_of
from loopscope.jobs.planned_runs import planned_study
from loopscope.jobs.study import run_study
from loopscope.results import load_results
from loopscope.results.layout import run_folder
from tests.fixtures import TINY
from tests.jobs.fixtures import OVER, cache  # noqa: F401 (a fixture)


@given(seeds=st.integers(1, 12), conditions=st.integers(1, 12), of=st.integers(1, 16))
def test_parts_are_even_and_spread(seeds: int, conditions: int, of: int) -> None:
    grid = list(product(range(seeds), range(conditions)))
    taken = [
        [cell for cell in grid if Shard(number, of).takes(*cell, conditions)] for number in range(1, of + 1)
    ]
    assert sorted(cell for part in taken for cell in part) == grid
    sizes = [len(part) for part in taken]
    assert max(sizes) - min(sizes) <= 1
    for part in taken:  # no condition is anybody's alone where there are seeds for all
        by_seed = Counter(seed for seed, _ in part)
        assert max(by_seed.values(), default=0) <= -(-conditions // of)
        by_condition = Counter(condition for _, condition in part)
        if seeds % of == 0 and part:
            assert set(by_condition.values()) == {seeds // of}


def test_a_part_is_named_by_two_numbers() -> None:
    assert shard_of("2/4") == Shard(2, 4)
    assert str(shard_of("1/1")) == "1/1"
    for text in ("3/2", "0/1", "1/0", "1", "a/b", "-1/2", "1/2/3", "", "1.0/2", "٣/٤"):
        with pytest.raises(ValueError, match="give which part of how many, from 1 up to that many: 2/4"):
            shard_of(text)


def test_a_part_trains_its_own_runs_and_collects_all(tmp_path: Path) -> None:
    names, seeds = ["dense/rmsnorm", "dense/raw"], [0, 1]
    first, second = (StudyLaunch(shard=Shard(number, 2)) for number in (1, 2))
    planned = []
    for launch in (first, second):
        plans = planned_study("laptop", names, seeds, tmp_path / "study", OVER, launch=launch)
        planned.append([(plan.config.condition, plan.config.training.seed) for plan in plans])
    assert planned == [[("dense/rmsnorm", 0), ("dense/raw", 1)], [("dense/raw", 0), ("dense/rmsnorm", 1)]]
    one = run_study("laptop", names, seeds, tmp_path / "study", OVER, quiet=True, launch=first)
    assert sorted((run.condition, run.seed) for run in one.runs) == sorted(planned[0])
    both = run_study("laptop", names, seeds, tmp_path / "study", OVER, quiet=True, launch=second)
    assert len(both.runs) == 4
    empty = StudyLaunch(shard=Shard(5, 5))
    assert (
        run_study("laptop", names, seeds, tmp_path / "study", OVER, quiet=True, launch=empty).runs
        == both.runs
    )


@pytest.mark.slow
def test_two_parts_in_one_folder_lose_nothing_and_train_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "study"
    command = [
        sys.executable,
        "-m",
        "loopscope",
        "study",
        "--conditions",
        "dense/rmsnorm,dense/raw",
        "--seeds",
        "2",
    ]
    parts = [
        subprocess.Popen(
            [*command, "--out", str(out), *TINY, "--training.monitor-every=0", "--quiet", "--shard", part]
        )
        for part in ("1/2", "2/2")
    ]
    assert [part.wait(timeout=120) for part in parts] == [0, 0]
    results = load_results(out)
    assert [run.status for run in results.runs] == ["completed"] * 4
    for run in results.runs:
        records = (run_folder(out, run.condition, run.seed) / "metrics.jsonl").read_text().splitlines()
        trained = [json.loads(line)["step"] for line in records if json.loads(line)["kind"] == "train"]
        assert trained == [1, 2, 3]
