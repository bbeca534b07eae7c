"""Ctrl-C and SIGTERM: the step is finished and saved, and the run goes on from there, bit for bit."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.results.layout import newest_checkpoint
from loopscope.training import loop as loop_module
from loopscope.training.stop_request import StopRequest, TrainingStoppedError
from tests.training.test_loop import losses, weights

Trainer = Any


@pytest.fixture(autouse=True)
def signals_as_at_start() -> Iterator[None]:
    """Whoever runs the suite may have set them otherwise."""
    start = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGUSR1: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in start.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_step_is_finished_and_saved(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    _, whole = trainer("whole", log_every=1)
    real, before = loop_module.log_step, signal.getsignal(number)

    def asked(log: Any, display: Any, step: int, *rest: Any) -> None:
        real(log, display, step, *rest)
        if step == 7:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop_module, "log_step", asked)
    with pytest.raises(
        TrainingStoppedError, match=f"stopped by {number.name} after step 8 of 12, saved"
    ) as stopped:
        trainer("cut", log_every=1)
    assert (stopped.value.step, stopped.value.signal) == (8, number)
    assert signal.getsignal(number) is before
    assert newest_checkpoint(tmp_path / "cut").name == "step-00000008"
    monkeypatch.setattr(loop_module, "log_step", real)
    _, resumed = trainer("cut", log_every=1)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_second_one_stops_at_once_and_an_ignored_one_stays_ignored() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.number is None
    finally:
        signal.signal(signal.SIGINT, before)
