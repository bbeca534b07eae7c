"""Checkpoints that survive being killed at any moment.

One checkpoint is a folder `checkpoints/step-00000100`: weights and optimizer state as safetensors (no pickle), the
resolved config, the tokenizer, and `state.json` with the step, how far the metrics went, what it was worth on the
validation text where that was asked, which tensors are one, and a SHA-256 of every other file and of itself
(`results.manifest`). It is written under another name, synced to disk and renamed; only then do older ones go. A folder
with its final name is therefore complete, and damage that comes later is found on reading.

When and how one is saved, in the background or not, is `checkpoint_saver`'s.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from loopscope.results.checkpoints import VALIDATION, best_checkpoints, whole_checkpoint
from loopscope.results.faults import concerning
from loopscope.results.layout import (
    METRICS,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    checkpoint_folder,
    checkpoint_folders,
    remove_other_checkpoints,
    set_aside_damaged,
    sync,
    unfinished,
)
from loopscope.results.manifest import READ, check_files, sha256_of, table_of
from loopscope.results.tensor_file import read_tensors, write_tensors
from loopscope.results.tied_weights import tie_problem, ties_of
from loopscope.training.optimizer_state import AnyOptimizer, optimizer_tensors, restore_optimizer

RESUMED = (*READ, OPTIMIZER)
"""Files that a run which goes on reads."""
TIES = "ties"


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Batches, dropout and learning rate follow from the step."""

    step: int  # optimizer steps done
    tokens: int  # training tokens seen
    seconds: float  # spent training, over all resumptions


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay when one is saved: the newest, and those with the lowest validation loss."""

    last: int = 1
    best: int = 0


@dataclass(frozen=True)
class ValidationScore:
    """What a checkpoint was worth: loss of the last loop at the trained depth, and the windows it is of (None: all)."""

    loss: float  # nats per token
    windows: int | None


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, as it was at one step."""

    progress: Progress
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    files: Mapping[str, str]  # text files beside the weights, by name
    ties: Mapping[str, str] = field(default_factory=dict)
    score: ValidationScore | None = None
    metrics: int | None = None  # bytes of the run's metrics file at that step


def take_snapshot(
    run: str | Path,
    progress: Progress,
    model: nn.Module,
    optimizer: AnyOptimizer,
    files: Mapping[str, str],
    score: ValidationScore | None = None,
    copied: bool = False,
) -> Snapshot:
    """Return what a checkpoint of this moment holds. Copied, it stays so while training goes on.

    Memory: none, or where copied the size of the weights and the optimizer's state, in the machine's memory.
    """
    weights: dict[str, Tensor] = model.state_dict()
    ties = ties_of(weights)
    state = optimizer_tensors(model, optimizer)
    weights = {name: tensor for name, tensor in weights.items() if name not in ties}
    if copied:
        weights, state = (
            {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for tensors in (weights, state)
        )
    metrics = Path(run) / METRICS
    size = metrics.stat().st_size if metrics.is_file() else None
    return Snapshot(progress, weights, state, files, ties, score, size)


def save_checkpoint(
    run: str | Path,
    progress: Progress,
    model: nn.Module,
    optimizer: AnyOptimizer,
    files: Mapping[str, str],
    kept: Retention | None = None,
    score: ValidationScore | None = None,
) -> Path:
    """Write a checkpoint of a run folder, and remove those that need not stay.

    Of what lies beside it, only the run's other `step-…` folders go: what a user puts there stays, and no link is
    followed.

    Args:
        files: text files to keep beside the weights (config, tokenizer), by name.
        kept: which stay; None keeps this one.
        score: what the model is worth now, by which the best are found.

    Raises:
        OSError: the disk is full, say; the checkpoint before is whole.
        ValueError: `checkpoints` is a link.
    """
    return write_snapshot(
        run, take_snapshot(run, progress, model, optimizer, files, score), kept or Retention()
    )


def write_snapshot(run: str | Path, snapshot: Snapshot, kept: Retention) -> Path:
    """Write what `take_snapshot` took as `save_checkpoint` does, and return its folder."""
    final = checkpoint_folder(run, snapshot.progress.step)
    if final.is_dir():  # the same step again, after a resume: it is complete
        return final
    with folder_begun(final) as writing:
        write_tensors(snapshot.weights, writing / WEIGHTS)
        write_tensors(snapshot.optimizer, writing / OPTIMIZER)
        finish_folder(writing, run, snapshot)
    remove_older(run, kept)
    return final


@contextmanager
def folder_begun(final: Path) -> Iterator[Path]:
    """Give an empty folder to fill: it gets a checkpoint's name when the block ends, and goes where that fails."""
    refuse_linked_checkpoints(final.parent.parent)
    writing = unfinished(final)
    with concerning(final, writing):
        final.parent.mkdir(parents=True, exist_ok=True)
        if writing.is_symlink():
            writing.unlink()
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        try:
            yield writing
        except OSError:  # a full disk keeps no half of it
            shutil.rmtree(writing, ignore_errors=True)
            raise
        writing.rename(final)
        sync(final.parent)


def remove_older(run: str | Path, kept: Retention) -> None:
    """Remove the checkpoints of a run but for the newest and the best."""
    newest = checkpoint_folders(run)[: kept.last]
    remove_other_checkpoints(newest[0], *newest, *best_checkpoints(run, kept.best))


def refuse_linked_checkpoints(run: str | Path) -> None:
    """Raise ValueError where a run's `checkpoints` is a link: a save removes older ones, which may be another run's."""
    folder = checkpoint_folder(run, 0).parent
    if folder.is_symlink():
        raise ValueError(
            f"{folder} is a link to {folder.resolve()}; a save removes the older checkpoints beside the new one, so it "
            "must be a folder of the run's own. Remove the link; to keep a run elsewhere, let the run's folder be one"
        )


def finish_folder(
    writing: Path, run: str | Path, snapshot: Snapshot, known: Mapping[str, str] | None = None
) -> None:
    """Write what a checkpoint has beside its tensors, with the hashes of all, and wait until it is on the disk.

    Args:
        known: hashes of files that other processes have written and synced.
    """
    for name, text in snapshot.files.items():
        (writing / name).write_text(text, encoding="utf-8")
    (writing / STATE).write_text(table_of(writing, _state(run, snapshot), known), encoding="utf-8")
    for path in writing.iterdir():
        if path.name not in (known or {}):
            sync(path)
    sync(writing)


def _state(run: str | Path, snapshot: Snapshot) -> dict[str, Any]:
    """What state.json says beside the hashes."""
    state: dict[str, Any] = asdict(snapshot.progress)
    if snapshot.ties:
        state[TIES] = dict(snapshot.ties)
    if snapshot.score is not None:
        state[VALIDATION] = asdict(snapshot.score)
    if snapshot.metrics is not None:  # that a resumed run can say where its curve was cut or exchanged
        metrics = Path(run) / METRICS
        sync(metrics)
        state["metrics"] = {"bytes": snapshot.metrics, "sha256": sha256_of(metrics, snapshot.metrics)}
    return state


def resume_from_newest(
    run: str | Path, model: nn.Module, optimizer: AnyOptimizer, load: bool = True
) -> tuple[Path | None, Progress]:
    """Restore the newest checkpoint of a run that is whole, in place; return it, and where the run stood.

    Without any checkpoint: None, and the start.

    Args:
        load: false: it is only checked, to be loaded by who shards the model.

    Raises:
        ValueError: there are checkpoints and none can be read, or they are not this model's.
    """
    checkpoint = whole_checkpoint(run, RESUMED)
    if checkpoint is None:
        return None, Progress(step=0, tokens=0, seconds=0.0)
    if load:
        return checkpoint, load_checkpoint(checkpoint, model, optimizer)
    return checkpoint, _progress(verify(checkpoint))


def set_aside_above(checkpoint: Path) -> None:
    """Give the checkpoints above one another name: they are damaged, and their steps will be saved again."""
    for damaged in checkpoint_folders(checkpoint.parent.parent):
        if damaged == checkpoint:
            return
        warnings.warn(f"{damaged} is kept as {set_aside_damaged(damaged).name}", stacklevel=3)


def load_checkpoint(
    checkpoint: str | Path, model: nn.Module, optimizer: AnyOptimizer | None = None
) -> Progress:
    """Restore weights (and optimizer state) in place; return where the run stood.

    Raises:
        ValueError: a file is missing or damaged, or its tensors are not tied as the model's; named with what to do.
    """
    checkpoint = Path(checkpoint)
    state = verify(checkpoint)
    weights = read_tensors(checkpoint / WEIGHTS)
    here: dict[str, Tensor] = model.state_dict()
    ties, own = state.get(TIES) or {}, ties_of(here)
    if problem := tie_problem(weights, here, ties, own):
        raise ValueError(f"{checkpoint / WEIGHTS} {problem}")
    model.load_state_dict(weights | {alias: weights[name] for alias, name in own.items() if name in weights})
    if optimizer is not None:
        restore_optimizer(model, optimizer, read_tensors(checkpoint / OPTIMIZER))
    return _progress(state)


def _progress(state: Mapping[str, Any]) -> Progress:
    return Progress(step=state["step"], tokens=state["tokens"], seconds=state["seconds"])


def verify(checkpoint: str | Path) -> dict[str, Any]:
    """Check every file against its recorded hash and return the recorded state.

    Raises:
        ValueError: a file is missing, cut short or changed.
    """
    path = Path(checkpoint) / STATE
    state = check_files(checkpoint, RESUMED)
    whole = state is not None and type(state.get("step")) is type(state.get("tokens")) is int
    if state is None or not whole or type(state.get("seconds")) not in (int, float):
        raise ValueError(
            f"{path} is missing or does not say where the run stood; restore the folder from a copy, or delete it to "
            "start the run anew"
        )
    return state
