"""Which checkpoints stay, what a full disk costs, and that a save in the background is the save that was waited for."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from loopscope.results.checkpoints import best_checkpoint, whole_checkpoint
from loopscope.results.faults import in_words
from loopscope.results.layout import OPTIMIZER, STATE, WEIGHTS, checkpoint_folders, newest_checkpoint
from loopscope.training import checkpoint as checkpoint_module
from loopscope.training.checkpoint import Progress, Retention, ValidationScore, save_checkpoint, verify
from loopscope.training.metrics import MetricsLog, read_metrics
from tests.training.test_loop import losses, weights

Trainer = Any


def save(run: Path, step: int, loss: float | None, kept: Retention, windows: int | None = None) -> Path:
    torch.manual_seed(step)
    model = torch.nn.Linear(3, 4)
    score = None if loss is None else ValidationScore(loss, windows)
    optimizer = torch.optim.AdamW(model.parameters())
    return save_checkpoint(run, Progress(step, step * 10, 1.5), model, optimizer, {}, kept, score)


def steps(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoint_folders(run))


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    kept, seen = Retention(last=2, best=1), []
    for step, loss in enumerate([3.0, 2.0, 2.5, 2.0, 2.2, 2.1], start=1):
        save(tmp_path, step, loss, kept)
        seen.append(steps(tmp_path))
    assert seen == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [2, 5, 6]]  # of equals the older
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00000002"
    assert whole_checkpoint(tmp_path) == newest_checkpoint(tmp_path) == tmp_path / "checkpoints/step-00000006"
    save(
        tmp_path, 7, 9.0, Retention(last=1, best=2), windows=4
    )  # of another text: those before do not compare
    assert steps(tmp_path) == [7]
    save(tmp_path, 8, None, Retention(last=1, best=2))
    assert steps(tmp_path) == [7, 8]
    assert best_checkpoint(tmp_path / "none") is None


def test_a_best_checkpoint_whose_state_was_changed_is_none(tmp_path: Path) -> None:
    kept = Retention(last=9)
    first, second = save(tmp_path, 1, 1.0, kept), save(tmp_path, 2, 2.0, kept)
    assert best_checkpoint(tmp_path) == first
    state = json.loads((first / STATE).read_text())
    state["validation"]["loss"] = 0.5
    (first / STATE).write_text(json.dumps(state))
    assert best_checkpoint(tmp_path) == second


def test_a_run_keeps_its_best_by_the_last_loop_s_loss(trainer: Trainer, tmp_path: Path) -> None:
    settings = {"checkpoint_every": 2, "evaluate_every": 4, "evaluate_windows": 1, "learning_rate": 0.3}
    trainer("run", keep_best=2, keep_last=2, **settings)
    trainer("all", keep_best=1, keep_last=99, **settings)
    run, every = tmp_path / "run", tmp_path / "all"
    scores = {
        path: json.loads((path / STATE).read_text())["validation"]["loss"]
        for path in checkpoint_folders(every)
    }
    assert steps(every) == [2, 4, 6, 8, 10, 12]
    assert best_checkpoint(every) == min(scores, key=lambda path: (scores[path], path))
    ranked = sorted(scores, key=lambda path: (scores[path], path))
    assert {path.name for path in checkpoint_folders(run)} == {
        path.name for path in [*ranked[:2], *checkpoint_folders(every)[:2]]
    }
    logged = {r["step"]: r["per_loop"][-1]["loss"] for r in read_metrics(every) if r["kind"] == "evaluation"}
    assert {step: scores[every / "checkpoints" / f"step-{step:08}"] for step in (4, 8)} == {
        step: logged[step] for step in (4, 8)
    }
    assert sorted(logged) == [4, 8, 12]  # what saves alone ask is not logged


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, "config.yaml", STATE])
def test_a_damaged_newest_falls_back_to_the_one_before_and_is_named(
    trainer: Trainer, tmp_path: Path, name: str, killed: Any
) -> None:
    settings = {"checkpoint_every": 4, "log_every": 1, "keep_last": 2}
    _, whole = trainer("whole", **settings)
    killed("cut", 10, **settings)
    cut = tmp_path / "cut"
    assert steps(cut) == [4, 8]
    damaged = newest_checkpoint(cut) / name  # type: ignore[operator]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.warns(UserWarning, match="the newest that is whole") as warned:
        _, resumed = trainer("cut", **settings)
    said = [str(warning.message) for warning in warned]
    assert any(str(damaged) in text and "step-00000004, the newest that is whole" in text for text in said)
    assert any("kept as damaged-step-00000008" in text for text in said)
    assert losses(cut) == losses(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert steps(cut) == [8, 12]
    for path in checkpoint_folders(cut):
        verify(path)
    assert (cut / "checkpoints" / "damaged-step-00000008" / name).is_file()


def test_where_none_is_whole_the_newest_is_refused_by_name(trainer: Trainer, tmp_path: Path) -> None:
    trainer("run", checkpoint_every=6, keep_last=2)
    for path in checkpoint_folders(tmp_path / "run"):
        (path / WEIGHTS).write_bytes(b"")
    with pytest.raises(ValueError, match=r"step-00000012/model.safetensors is cut short"):
        trainer("run", checkpoint_every=6, keep_last=2)
    assert steps(tmp_path / "run") == [6, 12]


@pytest.mark.parametrize("how", ["waiting", "background"])
def test_a_full_disk_costs_one_save_and_training_goes_on(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    settings = {"checkpoint_every": 3, "log_every": 1, "save": how, "steps": 11}
    _, whole = trainer("whole", **settings)
    real, found = checkpoint_module.write_tensors, []

    def full(tensors: Any, path: Path) -> None:
        if "step-00000006" in str(path) and path.name == OPTIMIZER:
            no_room()
        if "step-00000009" in str(path):
            found.append(steps(tmp_path / "run"))
        real(tensors, path)

    monkeypatch.setattr(checkpoint_module, "write_tensors", full)
    with pytest.warns(UserWarning, match="step-00000006 was not saved: the disk is full") as warned:
        _, model = trainer("run", **settings)
    (said,) = [str(w.message) for w in warned if "not saved" in str(w.message)]
    assert said.startswith(str(tmp_path / "run" / "checkpoints" / "step-00000006"))
    assert "tries again at the next save; until then step-00000003 is the newest" in said
    assert found[0] == [3]
    assert steps(tmp_path / "run") == [11]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000011"]
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(model), strict=True))


@pytest.mark.parametrize("how", ["waiting", "background"])
def test_the_last_save_on_a_full_disk_is_an_error_that_says_how_to_go_on(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    settings = {"checkpoint_every": 8, "log_every": 1, "save": how}
    _, whole = trainer("whole", **settings)
    real = checkpoint_module.write_tensors
    monkeypatch.setattr(
        checkpoint_module,
        "write_tensors",
        lambda tensors, path: no_room() if "step-00000012" in str(path) else real(tensors, path),
    )
    with pytest.raises(OSError, match="No space left") as caught:
        trainer("run", **settings)
    assert in_words(caught.value) == (
        f"{tmp_path / 'run' / 'checkpoints' / 'step-00000012'}: the disk is full. What was saved before is whole; make "
        "room there, or name a folder on another disk, then --resume goes on from step-00000008"
    )
    assert steps(tmp_path / "run") == [8]
    monkeypatch.setattr(checkpoint_module, "write_tensors", real)
    _, model = trainer("run", **settings)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(model), strict=True))


def test_what_no_waiting_cures_ends_the_run(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(checkpoint_module, "write_tensors", denied)
    for how in ("waiting", "background"):
        with pytest.raises(PermissionError):
            trainer(how, checkpoint_every=3, save=how)
        trained = [r["step"] for r in read_metrics(tmp_path / how) if r["kind"] == "train"]
        assert max(trained) < 12


def test_a_save_in_the_background_keeps_the_moment_that_it_was_of(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written before training has gone on."""
    settings = {"checkpoint_every": 4, "log_every": 1, "keep_last": 9, "steps": 11}
    trainer("waiting", save="waiting", **settings)
    real, logged = checkpoint_module.write_tensors, {}

    def slow(tensors: Any, path: Path) -> None:
        step, patience = int(path.parent.name.rpartition("-")[2]), time.monotonic() + 60
        while step < 11 and last() <= step and time.monotonic() < patience:
            time.sleep(0.005)
        logged[path.parent.name] = last()
        real(tensors, path)

    def last() -> int:
        return max(record["step"] for record in read_metrics(tmp_path / "background"))

    monkeypatch.setattr(checkpoint_module, "write_tensors", slow)
    trainer("background", save="background", **settings)
    assert logged[".writing-step-00000004"] > 4  # else it was waited for
    assert steps(tmp_path / "background") == [4, 8, 11]
    for path in checkpoint_folders(tmp_path / "background"):
        verify(path)
        twin = tmp_path / "waiting" / "checkpoints" / path.name
        for name in (WEIGHTS, OPTIMIZER):
            mine, theirs = load_file(path / name), load_file(twin / name)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
        assert (
            json.loads((path / STATE).read_text())["metrics"]["bytes"]
            <= (tmp_path / "background/metrics.jsonl").stat().st_size
        )


@pytest.mark.filterwarnings("error")
def test_records_wait_in_memory_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MetricsLog(tmp_path, 0, 9)
    log.write("note", 1)
    real = Path.open

    def full(path: Path, mode: str = "r", **how: Any) -> Any:
        if mode == "a":
            with real(path, "ab") as file:
                file.write(b'{"kind": "no')  # half a line reached the disk
            no_room()
        return real(path, mode, **how)

    monkeypatch.setattr(Path, "open", full)
    with pytest.warns(UserWarning, match="metrics.jsonl cannot grow from step 2 on: the disk is full"):
        log.write("note", 2)
    log.write("note", 3)  # said once: another warning would be an error here
    with pytest.raises(OSError, match="No space left"):
        log.flush()
    monkeypatch.undo()
    assert [record["step"] for record in read_metrics(tmp_path)] == [1]
    log.write("note", 4)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]
