"""Runs of a study at the same time: each once, each with its threads, through killed processes and through Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopscope.config.recipes import recipe
from loopscope.config.study_launch import StudyLaunch
from loopscope.jobs import places as places_module
from loopscope.jobs import side_by_side
from loopscope.jobs.places import Workplace, places
from loopscope.jobs.study import run_study
from loopscope.results import load_results
from loopscope.results.layout import newest_checkpoint, run_folder, worker_log
from loopscope.results.lock import present_holder
from tests.fixtures import TINY
from tests.jobs.fixtures import (
    OVER,
    PAIR,
    cache,  # noqa: F401 (a fixture)
    odd_variants,
    trained_steps,
    wait_for,
)
from tests.results.fixtures import start_holder

TWO = StudyLaunch(at_once=2)
LONG = {**OVER, "training": {**OVER["training"], "steps": 10**6, "checkpoint_every": 10}}


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "usable_cores", lambda: 4.0)
    monkeypatch.setattr(side_by_side, "LOOK_EVERY", 0.1)


@pytest.mark.slow
def test_every_run_is_trained_once_and_equals_one_that_was_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among them one that diverges, and one that fails: the weights that it begins with are not there."""
    variants = odd_variants(tmp_path)
    names = [*PAIR, "nan", "broken"]
    both = run_study("laptop", names, [0], tmp_path / "two", OVER, variants=variants, launch=TWO)
    said = capsys.readouterr().err
    alone = run_study("laptop", names, [0], tmp_path / "one", OVER, quiet=True, variants=variants)
    assert [run.status for run in both.runs] == ["completed", "completed", "diverged", "failed"]
    assert [(run.condition, run.status, run.per_loop) for run in both.runs] == [
        (run.condition, run.status, run.per_loop) for run in alone.runs
    ]
    assert load_results(tmp_path / "two") == both
    for name in PAIR:
        assert trained_steps(run_folder(tmp_path / "two", name, 0)) == [1, 2, 3]
        assert f"{name}, seed 0: finished" in said
    assert "broken, seed 0: failed" in said
    assert "nan, seed 0: diverged" in said
    assert "dense/raw seed 0" in "".join(
        worker_log(tmp_path / "two", number).read_text() for number in (1, 2)
    )
    again = run_study("laptop", PAIR, [0], tmp_path / "two", OVER, quiet=True, launch=TWO)
    assert again.runs == both.runs
    assert trained_steps(run_folder(tmp_path / "two", "dense/raw", 0)) == [1, 2, 3]


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_a_second_time_its_run_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    show = side_by_side._Crew._show
    run = run_folder(tmp_path, "dense/raw", 0)

    def killing(crew: Any) -> None:
        show(crew)
        holder = present_holder(run)
        if holder and holder.pid not in killed and (newest_checkpoint(run) or killed):
            killed.append(holder.pid)
            os.kill(holder.pid, signal.SIGKILL)

    monkeypatch.setattr(side_by_side._Crew, "_show", killing)
    variants = {"short": {"training": {"steps": 3}}}
    # The one that is killed has no end of its own; the other is short.
    results = run_study(
        "laptop", ["dense/raw", "short"], [0], tmp_path, LONG, quiet=True, variants=variants, launch=TWO
    )
    assert len(killed) == 2
    by_name = {run.condition: run for run in results.runs}
    assert by_name["short"].status == "completed"
    assert by_name["dense/raw"].status == "failed"
    failure = by_name["dense/raw"].failure
    assert failure is not None
    assert (
        "its process was ended 2 times (the last time: SIGKILL; memory may have run out)" in failure.message
    )
    assert failure.last_checkpoint == newest_checkpoint(run).name  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_every_run_and_the_same_command_goes_on(
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    flags = [word for word in TINY if not word.startswith("--training.steps")]
    command = [
        "study",
        "--conditions",
        ",".join(PAIR),
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "study"),
        *flags,
    ]
    command += ["--at-once", "2", "--training.checkpoint-every=1000000", "--training.monitor-every=0"]
    forced = "import loopscope.jobs.places as p, signal; p.usable_cores = lambda: 4.0\n"
    forced += (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs are started without
    )
    forced += "from loopscope.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", forced, *command, "--training.steps=1000000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    runs = [run_folder(tmp_path / "study", name, 0) for name in PAIR]
    try:
        wait_for(lambda: all((run / "metrics.jsonl").is_file() and trained_steps(run) for run in runs))
        workers = [present_holder(run) for run in runs]
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode not in (0, 1, 2)
    assert f"stopped by {number.name}; 2 runs were under way, and each has saved" in said
    assert "go on with the same command: loopscope study" in said.splitlines()[-1]
    for run, worker in zip(runs, workers, strict=True):
        assert newest_checkpoint(run) is not None
        assert worker is not None
        assert present_holder(run) is None
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)


@pytest.mark.slow
def test_processes_whose_parent_was_killed_save_and_end(tmp_path: Path) -> None:
    code = f"""
import loopscope.jobs.places as places
from loopscope.config.study_launch import StudyLaunch
from loopscope.jobs.study import run_study
places.usable_cores = lambda: 4.0
run_study("laptop", {PAIR!r}, [0], {str(tmp_path / "study")!r}, {LONG!r}, True, launch=StudyLaunch(at_once=2))
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    runs = [run_folder(tmp_path / "study", name, 0) for name in PAIR]
    try:
        wait_for(lambda: all(newest_checkpoint(run) for run in runs))
        workers = [present_holder(run) for run in runs]
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: all(present_holder(run) is None for run in runs))
    assert all(workers)
    logs = "".join(worker_log(tmp_path / "study", number).read_text() for number in (1, 2))
    assert logs.count("finishing this step, then saving it") == 2


@pytest.mark.slow
def test_what_others_hold_is_left_to_them_or_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(run_study("laptop", PAIR[:1], [0], tmp_path / "study", OVER, quiet=True).runs) == 1
    held = run_folder(tmp_path / "study", "dense/raw", 0)
    other = start_holder(held)
    try:
        left = run_study("laptop", PAIR, [0], tmp_path / "study", OVER, wait=False, launch=TWO)
        said = capsys.readouterr().err.replace("\n", "")
        assert [run.condition for run in left.runs] == ["dense/rmsnorm"]
        assert (
            f"left to their processes: 1 of 1 that others train (dense/raw, seed 0: process {other.pid}"
            in said
        )
    finally:
        other.kill()
        other.wait()


def test_cores_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = recipe("laptop", "dense/raw", {"training": {"device": "cpu"}})
    two = recipe("laptop", "dense/raw", {"training": {"device": "cpu", "threads": 2}})
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    assert places(None, plain) == [Workplace(1, 4)]
    assert places(1, two) == [Workplace(1, 2)]
    assert places("auto", plain) == [Workplace(number, 1) for number in (1, 2, 3, 4)]
    assert places("auto", two) == [Workplace(1, 2), Workplace(2, 2)]
    assert [place.threads for place in places(3, plain)] == [1, 1, 1]
    assert [place.threads for place in places(2, plain)] == [2, 2]
    assert places(2, two)[1].environment() == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    monkeypatch.setattr(places_module, "free_bytes", lambda: 2 * 10**9)
    assert len(places("auto", plain)) < 4
    monkeypatch.setattr(places_module, "resolve_device", lambda name: "cuda" if name != "cpu" else "cpu")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    gpu = recipe("laptop", "dense/raw", {"training": {"device": "cuda"}})
    assert [place.gpu for place in places("auto", gpu)] == ["0", "1"]
    assert [place.gpu for place in places(3, gpu)] == ["0", "1", "0"]
    assert [place.threads for place in places(2, gpu)] == [2, 2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f")
    assert places("auto", gpu)[1].environment()["CUDA_VISIBLE_DEVICES"] == "GPU-7f"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--at-once", "0"],
            "at-once is '0'; give how many runs are trained at the same time, from 1 up, or auto",
        ),
        (["--at-once", "many"], "at-once is 'many'; give how many"),
        (
            ["--at-once", "5"],
            "at-once is 5, and the 4 cores of this machine are enough for 4 with a thread each",
        ),
        (
            ["--at-once", "3", "--training.threads=2"],
            "are enough for 2 with 2 threads each (training.threads)",
        ),
        (["--shard", "3/2"], "shard is '3/2'; give which part of how many"),
        (["--shard", "0/2"], "shard is '0/2'"),
        (["--shard", "half"], "shard is 'half'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    for more in ([], ["--dry-run"]):
        assert call("study", "--out", tmp_path / "study", *TINY[:-1], *words, *more) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert says in said[0]
        assert not (tmp_path / "study").exists()
