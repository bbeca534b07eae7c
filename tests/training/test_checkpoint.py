"""Checkpoints: complete or absent, and damage is named."""

import json
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

from loopscope.results.faults import in_words
from loopscope.results.layout import newest_checkpoint
from loopscope.training import checkpoint as checkpoint_module
from loopscope.training.checkpoint import (
    Progress,
    load_checkpoint,
    save_checkpoint,
    verify,
)
from tests.results.fixtures import file_limit

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


def test_where_the_run_stood_cannot_be_changed(tmp_path: Path) -> None:
    """A wrong step would skip training, or end it."""
    path = save(tmp_path, 3) / "state.json"
    whole = json.loads(path.read_text())
    for change in ({"step": 9}, {"tokens": 0}, {"sha256": {}}):
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(ValueError, match=r"state\.json"):
            load_checkpoint(path.parent, torch.nn.Linear(3, 4))
    seal = "sha256_of_this_table"
    older = {key: value for key, value in whole.items() if key != seal}  # as 0.1 wrote it
    path.write_text(json.dumps(older))
    assert load_checkpoint(path.parent, torch.nn.Linear(3, 4)) == Progress(3, 30, 1.5)
    for change in ({"step": 9}, {"step": "3"}, {"sha256": {}}):
        path.write_text(json.dumps({**older, **change}))
        with pytest.raises(ValueError, match=r"state\.json"):
            verify(path.parent)


def test_a_save_touches_nothing_of_the_user_s(tmp_path: Path) -> None:
    save(tmp_path, 1)
    backup = tmp_path / "checkpoints" / "backup of step 1"
    backup.mkdir()
    (backup / "notes.txt").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("mine")
    (tmp_path / "checkpoints" / ".writing-step-00000002").symlink_to(elsewhere)
    save(tmp_path, 2)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["backup of step 1", "step-00000002"]
    assert (backup / "notes.txt").read_text() == (elsewhere / "thesis.tex").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoints").symlink_to(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match=r"other/checkpoints is a link"):
        save(tmp_path / "other", 3)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00000002"


def test_a_save_without_room_keeps_the_one_before_and_leaves_no_half(tmp_path: Path) -> None:
    first = save(tmp_path, 1)
    with file_limit(100), pytest.raises(OSError, match="too large") as caught:
        save(tmp_path, 2)
    assert in_words(caught.value).startswith(str(tmp_path / "checkpoints" / "step-00000002"))
    assert os.listdir(tmp_path / "checkpoints") == [first.name]
    verify(first)
