"""Several processes on one folder: a run has one writer, a study's runs are shared, and who is killed is followed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import loopscope
from loopscope.config.recipes import recipe
from loopscope.jobs import execute, run_study
from loopscope.results import FolderHeldError, load_results
from loopscope.results.layout import run_folder
from tests.fixtures import TINY
from tests.jobs.fixtures import OVER
from tests.results.fixtures import start_holder

GRID = ("dense/rmsnorm", "dense/raw"), (0, 1)

SHARING = """
import os, sys, time
from pathlib import Path
from loopscope import cli
from loopscope.jobs import study

real, log = study.execute, Path(sys.argv[1])

def logged(config, run, **named):
    with log.open("a") as file:
        file.write(f"{os.getpid()} {run}\\n")
    time.sleep(0.4)
    return real(config, run, **named)

study.execute = logged
sys.argv = ["loopscope", *sys.argv[2:]]
other = os.fork()  # importing torch takes longer than what two processes have to do
cli.main()
if other:
    assert os.waitpid(other, 0)[1] == 0
    print(os.getpid(), other)
"""


def steps(run: Path) -> list[int]:
    """Steps that a run's metrics have a training record of, in the order of the file."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if record["kind"] == "train"]


@pytest.mark.slow
def test_a_second_process_is_refused_and_a_killed_one_is_taken_over(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = recipe("laptop", "dense/raw", {**OVER, "training": {**OVER["training"], "steps": 10**6}})
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-m", "loopscope", "train", "--config", str(tmp_path / "run.yaml")]
    first = subprocess.Popen([*command, "--out", str(run), "--quiet", "--training.checkpoint-every", "20"])
    saving = recipe(
        "laptop",
        "dense/raw",
        {**OVER, "training": {**OVER["training"], "steps": 10**6, "checkpoint_every": 20}},
    )
    try:
        while not list(run.glob("checkpoints/step-*")):
            assert first.poll() is None
            time.sleep(0.05)
        for resume in (True, False):
            with pytest.raises(
                FolderHeldError, match=rf"held by process {first.pid} .*, since 20.*kill {first.pid}"
            ):
                execute(saving, run, resume=resume, quiet=True)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    trained = steps(run)[-1]
    assert steps(run) == [*range(1, trained + 1)]
    last = trained + 25
    values = {**OVER, "training": {**OVER["training"], "steps": last, "checkpoint_every": 20}}
    text = (run / "config.yaml").read_text().replace("steps: 1000000", f"steps: {last}")
    (run / "config.yaml").write_text(text)  # ends soon; the folder is otherwise as the kill left it
    assert execute(recipe("laptop", "dense/raw", values), run, resume=True, quiet=True).status == "completed"
    assert steps(run) == [*range(1, last + 1)]


@pytest.mark.slow
def test_two_studies_on_one_folder_train_every_run_once(cache: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "study"
    flags = [*TINY, "--training.precision=fp32", "--training.monitor-every=0", "--quiet"]
    command = ["study", "--conditions", ",".join(GRID[0]), "--seeds", "2", "--out", str(out), *flags]
    done = subprocess.run(
        [sys.executable, "-c", SHARING, str(log), *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    both = set(map(int, done.stdout.splitlines()[-1].split()))
    assert len(both) == 2
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    cells = [run_folder(out, condition, seed) for condition in GRID[0] for seed in GRID[1]]
    assert Counter(run for _, run in lines) == Counter(map(str, cells))
    assert {int(pid) for pid, _ in lines} == both
    assert all(steps(cell) == [1, 2, 3] for cell in cells)
    assert [run.status for run in load_results(out).runs] == ["completed"] * 4


def test_a_study_leaves_what_others_train_or_waits_and_takes_it_over(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(run_study("laptop", ["dense/raw"], [0], tmp_path / "study", OVER, quiet=True).runs) == 1
    held = run_folder(tmp_path / "study", "dense/rmsnorm", 0)
    other = start_holder(held)
    try:
        left = run_study("laptop", *GRID, tmp_path / "study", OVER, wait=False)
        assert len(left.runs) == 3
        said = capsys.readouterr().err.replace("\n", "")  # the console wraps lines
        assert f"1 of 3 that others train (dense/rmsnorm, seed 0: process {other.pid}" in said
        timer = threading.Timer(1.5, other.kill)
        timer.start()
        assert len(run_study("laptop", *GRID, tmp_path / "study", OVER, quiet=True).runs) == 4
        assert other.poll() is not None
        assert steps(held) == [1, 2, 3]
    finally:
        other.kill()
        other.wait()


def test_a_run_that_another_process_failed_at_is_not_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to a run that was open when it began, and finds the other's record of it."""
    from loopscope.jobs import study

    tried: list[Path] = []

    def failing(config: Any, run: Path, **_: Any) -> Any:
        tried.append(run)
        last = run_folder(tmp_path, "dense/raw", 1)
        study.failed(config, last, RuntimeError("out of memory elsewhere"), 0.0)
        raise RuntimeError("out of memory here")

    monkeypatch.setattr(study, "execute", failing)
    results = run_study("laptop", ["dense/raw"], [0, 1], tmp_path, OVER, quiet=True)
    assert tried == [run_folder(tmp_path, "dense/raw", 0)]
    messages = [run.failure.message for run in results.runs if run.failure]
    assert [message.split(" (")[0] for message in messages] == [
        "RuntimeError: out of memory here",
        "RuntimeError: out of memory elsewhere",
    ]


@pytest.mark.usefixtures("blank_figures")
def test_what_is_held_can_be_read(call: Any, tmp_path: Path) -> None:
    """Audit, evaluate, report and load ask nobody, and write what they find beside the run."""
    run = tmp_path / "run"
    execute(recipe("laptop", "dense/raw", OVER), run, quiet=True)
    other = start_holder(run)
    try:
        assert loopscope.load(run).loops == 2
        assert call("audit", run, "--sequences", 2) == 0
        assert call("evaluate", "depth", run, "--windows", 4) == 0
        assert call("report", run) == 0
        assert {"audit.json", "evaluation.json", "report.html"} <= {path.name for path in run.iterdir()}
        assert call("train", "--config", run / "config.yaml", "--out", run, "--resume") == 2
    finally:
        other.kill()
        other.wait()
