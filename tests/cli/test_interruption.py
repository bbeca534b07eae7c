"""An interrupted command names the one that goes on, and that one does."""

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from loopscope.cli.interruption import REQUEUE, TerminatedError, interrupted, status_of
from loopscope.results.layout import newest_checkpoint
from loopscope.training import loop as loop_module
from tests.fixtures import TINY, run_command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_train_that_a_scheduler_cuts_off_is_put_back_and_names_what_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    real = loop_module.log_step

    def asked(log: Any, display: Any, step: int, *rest: Any) -> None:
        real(log, display, step, *rest)
        if step == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop_module, "log_step", asked)
    run = tmp_path / "a run"
    assert run_command(monkeypatch, "train", "--out", run, *TINY) == REQUEUE
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"loopscope: dense/rmsnorm seed 0: stopped by {number.name} after step 2 of 3, saved; go on with: "
    )
    assert newest_checkpoint(run).name == "step-00000002"  # type: ignore[union-attr]
    monkeypatch.setattr(loop_module, "log_step", real)
    command = shlex.split(said.partition("go on with: ")[2])
    assert command[0] == "loopscope"
    assert run_command(monkeypatch, *command[1:]) == 0
    assert "goes on from step 2 of 3" in capsys.readouterr().err


def test_what_is_said_depends_on_what_was_saved(tmp_path: Path) -> None:
    stop = KeyboardInterrupt()
    words = ["train", "--out", str(tmp_path)]
    assert interrupted(stop, "train", words).startswith(
        "interrupted before the run began. Call again: loopscope train"
    )
    (tmp_path / "config.yaml").write_text("{}")
    assert (
        f"no checkpoint was saved yet; go on with: loopscope train --out {tmp_path} --resume"
        in interrupted(stop, "train", words)
    )
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)
    said = interrupted(TerminatedError(), "train", [*words, "--resume"])
    assert said == (
        f"terminated; the newest checkpoint is step-00000004; go on with: loopscope train --out {tmp_path} --resume"
    )
    assert "go on with the same command: loopscope study --out x" in interrupted(
        stop, "study", ["study", "--out", "x"]
    )
    assert "Call again: loopscope audit train" in interrupted(stop, "audit", ["audit", "train"])
    assert [status_of(stop, name) for name in ("train", "audit")] == [130, 130]
    for number, shell in ((signal.SIGTERM, 143), (signal.SIGUSR1, 138)):
        cut = TerminatedError(number)
        assert [status_of(cut, name) for name in ("train", "study", "audit")] == [99, 99, shell]
