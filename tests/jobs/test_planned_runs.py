"""A run before it is one: the numbers that it will have, the refusals that it would meet, and nothing written."""

from pathlib import Path
from typing import Any

import pytest

import loopscope
from loopscope.config.recipes import recipe
from loopscope.jobs.planned_runs import planned_run, planned_study
from loopscope.jobs.study import run_study
from loopscope.jobs.train import execute
from tests.fixtures import refusal
from tests.jobs.fixtures import TINY, cache, tiny  # noqa: F401 (a fixture)


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_the_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    config, run = tiny(), tmp_path / "run"
    before = planned_run(config, run)
    assert tree(tmp_path) == {}
    result = execute(config, run, quiet=True)
    planned = planned_run(config, run, resume=True)  # now that the text is tokenized
    for plan in (before, planned):
        assert (plan.parameters, plan.steps, plan.tokens) == (
            result.parameters,
            result.steps,
            result.tokens_trained,
        )
        assert plan.verdict.verdict == "blind"
    assert planned.windows is not None
    assert planned.windows > 0
    assert (before.done, before.finished) == (0, False)
    assert (planned.done, planned.finished) == (4, True)
    assert sum(tensor.numel() for tensor in loopscope.load(run).parameters()) == planned.parameters
    longer = planned_run(tiny(training={"steps": 6}), run, resume=True)
    assert (longer.steps, longer.done, longer.finished) == (6, 4, False)


def test_epochs_are_steps_once_the_text_is_tokenized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = {**TINY, "training": {**TINY["training"], "steps": None, "epochs": 1.0}}
    config = recipe("laptop", "dense/raw", over)
    known = planned_run(config, tmp_path / "run")
    assert known.windows is not None
    assert known.steps == -(-known.windows // 4)
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "empty"))
    unknown = planned_run(config, tmp_path / "run")
    assert (unknown.steps, unknown.tokens, unknown.windows, unknown.flops) == (None, None, None, None)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"training": {"device": "cuda:7"}}, "cannot be used here"),
        ({"training": {"weights": "nowhere"}}, "training.weights is 'nowhere', which is not there"),
        ({"data": {"corpus": "files", "files": ["none.txt"]}}, "'none.txt' is not a file and matches none"),
        ({"model": {"dim": 2**17}}, "at the very least"),
    ],
)
def test_what_a_run_would_refuse_is_refused(tmp_path: Path, sections: Any, says: str) -> None:
    config = tiny(**sections)
    assert says in (refusal(lambda: planned_run(config, tmp_path / "run")) or "")
    assert refusal(lambda: execute(config, tmp_path / "run", quiet=True)) is not None
    assert tree(tmp_path) == {}


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    over = {name: dict(values) for name, values in TINY.items()}
    run_study("laptop", ["dense/raw"], [0], out, over, quiet=True)
    there = tree(tmp_path)
    plans = planned_study("laptop", ["dense/raw", "dense/rmsnorm"], [0], out, over)
    assert [(plan.config.condition, plan.finished) for plan in plans] == [
        ("dense/raw", True),
        ("dense/rmsnorm", False),
    ]
    over["model"] = {**over["model"], "dim": 32}
    assert "belongs to another config (model.dim: 16 there, 32 now)" in (
        refusal(lambda: planned_study("laptop", ["dense/raw"], [0], out, over)) or ""
    )
    assert "already holds this run; add --resume" in (
        refusal(lambda: planned_run(plans[0].config, plans[0].folder)) or ""
    )
    assert tree(tmp_path) == there


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, 1),
        ({"keep_last": 3, "checkpoint_every": None}, 1),  # saved at the end alone
        ({"keep_last": 3, "keep_best": 2, "checkpoint_every": 5}, 5),
        ({"keep_last": 3, "keep_best": 2, "checkpoint_every": 15}, 2),
    ],
)
def test_the_disk_is_asked_for_as_many_checkpoints_as_stay(
    tmp_path: Path, settings: dict[str, Any], kept: int
) -> None:
    assert planned_run(tiny(training={"steps": 30, **settings}), tmp_path / "run").kept == kept
