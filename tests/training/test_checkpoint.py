"""Checkpoints: complete or absent, and damage is named."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.results.layout import newest_checkpoint
from loopscope.training import checkpoint as checkpoint_module
from loopscope.training.checkpoint import (
    Progress,
    load_checkpoint,
    save_checkpoint,
    verify,
)

Trainer = Any


def save(run: Path, step: int) -> Path:
    torch.manual_seed(step)
    model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    return save_checkpoint(run, Progress(step, step * 10, 1.5), model, optimizer, {"config.yaml": "a: 1\n"})


@pytest.mark.smoke
def test_round_trip(tmp_path: Path) -> None:
    saved = save(tmp_path, 3)
    torch.manual_seed(3)
    expected = torch.nn.Linear(3, 4)
    reference = torch.optim.AdamW(expected.parameters(), fused=True)
    expected(torch.randn(2, 3)).sum().backward()
    reference.step()
    model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    assert load_checkpoint(saved, model, optimizer) == Progress(3, 30, 1.5)
    assert torch.equal(model.weight, expected.weight)
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert optimizer.state[mine].keys() == reference.state[theirs].keys()
        for key, value in reference.state[theirs].items():
            assert torch.equal(optimizer.state[mine][key], value)


def test_the_previous_one_goes_only_when_the_next_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save(tmp_path, 1)

    def full_disk(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint_module, "sync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path) == first
    verify(first)
    second = save(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [second.name]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.yaml", "state.json"])
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1) / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_checkpoint(path.parent, torch.nn.Linear(3, 4))
    path.unlink()
    with pytest.raises(ValueError, match="missing"):
        verify(path.parent)


TRAINER = """
import os, sys, time
from pathlib import Path
import torch
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.training.config import TrainingConfig
from loopscope.training.loop import train
from tests.training.fixtures import DATA, VOCABULARY, SEQUENCE
torch.set_num_threads(1)

def run(folder):
    config = TrainingConfig(steps=60, batch=4, log_every=1, checkpoint_every=1, precision="fp32", device="cpu")
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(dim=16, heads=2, layers=1, loops=3, vocabulary=VOCABULARY,
                                          sequence=SEQUENCE, dropout=0.1))
    objective = build_objective(ObjectiveConfig())
    train(model, objective, DATA, config, Path(folder), {"config.yaml": "a"}, quiet=True)

for line in sys.stdin:
    process = os.fork()
    if process == 0:
        run(line.strip())
        os._exit(0)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
"""Trains in a process of its own for every folder on stdin, forked from one that has imported all it takes. Prints its
id when it starts and its exit code when it has ended."""


@pytest.mark.slow
def test_kill_9_at_any_moment_then_resume(tmp_path: Path) -> None:
    """Killed again and again at moments that drift over the step, then run to the end."""
    from loopscope.training.metrics import read_metrics

    command = [sys.executable, "-c", TRAINER]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdin is not None
        assert trainer.stdout is not None

        def run(folder: str, seconds: float | None = None) -> int:
            """The exit code of a training that is killed after so many seconds, or runs to its end."""
            assert trainer.stdin is not None
            assert trainer.stdout is not None
            print(tmp_path / folder, file=trainer.stdin, flush=True)
            process = int(trainer.stdout.readline())
            if seconds is not None:
                time.sleep(seconds)
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            return int(trainer.stdout.readline())

        assert run("whole") == 0
        codes = []
        for attempt in range(8):
            codes.append(run("cut", 0.11 + 0.037 * attempt))
            if saved := newest_checkpoint(tmp_path / "cut"):
                verify(saved)
        assert codes.count(-signal.SIGKILL) >= 3
        assert run("cut") == 0
        trainer.stdin.close()
        assert trainer.wait(timeout=60) == 0

    def curve(folder: str) -> dict[int, float]:
        return {r["step"]: r["loss"] for r in read_metrics(tmp_path / folder) if r["kind"] == "train"}

    assert curve("cut") == curve("whole")
    assert sorted(curve("cut")) == list(range(1, 61))
