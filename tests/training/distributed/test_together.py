"""Processes stop, fail, refuse and go on together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loopscope.results import run_from_json
from loopscope.results.layout import CONFIG, HOLDER, RESULT, newest_checkpoint
from tests.test_readme import TINY
from tests.training.distributed.fixtures import environments, run_ranks, trained_by
from tests.training.distributed.training_ranks import alone

DEPTH = {"distribution": "uniform", "low": 1, "high": 4}
PLAN: list[dict[str, Any]] = [
    {"name": "poisoned ddp", "poisoned": True, "training": {"parallel": "ddp", "steps": 8}},
    {"name": "poisoned fsdp", "poisoned": True, "training": {"parallel": "fsdp", "steps": 8}},
    {"name": "stopping ddp", "stop_at": 3, "training": {"parallel": "ddp", "steps": 40}},
    {"name": "stopping fsdp", "stop_at": 3, "training": {"parallel": "fsdp", "steps": 40}},
    {"name": "begun ddp", "folder": "ddp", "training": {"parallel": "ddp", "steps": 3, "depth": DEPTH}},
    {"name": "begun fsdp", "folder": "fsdp", "training": {"parallel": "fsdp", "steps": 3, "depth": DEPTH}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return trained_by(2, folder, PLAN)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_loss_that_is_no_number_in_one_process_stops_all(found: dict[str, Any], way: str) -> None:
    shown = found[f"poisoned {way}"]
    assert len(shown["failures"]) == 1
    assert shown["failures"][0]["step"] == 4
    assert shown["checkpoint"] is None
    ours, theirs = (failure for _, failure in shown["ranks"])
    assert "not finite at step 4" in ours
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_signal_to_one_process_stops_all_after_one_step(found: dict[str, Any], way: str) -> None:
    shown = found[f"stopping {way}"]
    (ours, _), (theirs, _) = shown["ranks"]
    assert ours == theirs
    step, number = ours
    assert number == signal.SIGTERM
    assert 3 <= step <= 6
    assert shown["checkpoint"] == f"step-{step:08}"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
@pytest.mark.parametrize("world", [1, 4])
def test_a_run_goes_on_in_another_number_of_processes(
    folder: Path, found: dict[str, Any], tmp_path: Path, way: str, world: int
) -> None:
    assert found[f"begun {way}"]["checkpoint"] == "step-00000003"
    whole = alone(tmp_path, [{"name": "whole", "training": {"steps": 6, "depth": DEPTH}}])["whole"]
    shutil.copytree(folder / way, tmp_path / way)
    other = "fsdp" if way == "ddp" else "ddp"  # another way, too
    longer = {"name": way, "training": {"parallel": other, "steps": 6, "depth": DEPTH}}
    shown = alone(tmp_path, [longer])[way] if world == 1 else trained_by(world, tmp_path, [longer])[way]
    assert shown["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    assert shown["checkpoint"] == whole["checkpoint"]
    for name, weight in whole["weights"].items():
        assert shown["weights"][name] == pytest.approx(weight, abs=1e-5)


WORDS = ["-m", "loopscope", "train", "--training.steps", "2", "--model.loops", "2", *TINY]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--training.batch", "5"], "training.batch 5 cannot be shared alike by 2 processes"),
        (["--training.parallel", "fsdp", "--objective.jacobian.weight", "0.1"], "set training.parallel: ddp"),
        (["--training.steps", "0"], "training.steps"),
        (["--training.device", "mps"], "training.device"),
        (["--training.weights", "nowhere"], "training.weights 'nowhere'"),
    ],
)
def test_a_refusal_is_said_once(tmp_path: Path, more: list[str], said: str) -> None:
    words = [word for word in WORDS if not word.startswith("--training.batch")]
    batch = [] if "--training.batch" in more else ["--training.batch", "4"]
    first, second = run_ranks(
        [*words, *batch, *more, "--out", str(tmp_path / "run")], 2, tmp_path, expected=2
    )
    lines = [line for line in first.splitlines() if line.startswith("loopscope: ") and "note:" not in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert second == ""


@pytest.mark.slow
def test_other_commands_take_one_process(tmp_path: Path) -> None:
    first, second = run_ranks(["-m", "loopscope", "doctor"], 2, tmp_path, expected=2)
    assert "start it without torchrun" in first
    assert len(first.splitlines()) == 1
    assert second == ""


@pytest.mark.slow
def test_a_process_that_is_killed_costs_no_word_of_the_users(tmp_path: Path) -> None:
    """torchrun starts all anew, with the same words, and the run goes on from its newest checkpoint."""

    run = tmp_path / "run"
    words = ["--nproc-per-node", "2", "--max-restarts", "2", *WORDS, "--out", str(run)]
    words[words.index("--training.steps") + 1] = "400"
    words += ["--training.checkpoint-every", "5", "--training.monitor-every", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *words],
        env={**environments(1)[0], "LOOPSCOPE_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(1200):
            checkpoint = newest_checkpoint(run)
            if checkpoint is not None or process.poll() is not None:
                break
            time.sleep(0.1)
        assert newest_checkpoint(run) is not None
        os.kill(json.loads((run / HOLDER).read_text())["pid"], signal.SIGKILL)
        _, errors = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            process.terminate()  # so that it ends what it has started
            process.wait(timeout=60)
    assert process.returncode == 0, errors[-3000:]
    assert run_from_json((run / RESULT).read_text()).steps == 400
    assert (run / CONFIG).is_file()
