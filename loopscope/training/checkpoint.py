"""Checkpoints that survive being killed at any moment.

One checkpoint is a folder `checkpoints/step-00000100`: weights and optimizer state as safetensors (no pickle), the
resolved config, the tokenizer, and `state.json` with the step, how far the metrics went, and a SHA-256 of every other
file and of itself (`results.manifest`). It is written under another name, synced to disk and renamed; only then is the
previous one removed. A folder with its final name is therefore complete, and damage that comes later is found on
reading.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.results.faults import concerning
from loopscope.results.layout import (
    METRICS,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    checkpoint_folder,
    remove_other_checkpoints,
    sync,
    unfinished,
)
from loopscope.results.manifest import READ, check_files, sha256_of, table_of
from loopscope.results.tensor_file import read_tensors, write_tensors
from loopscope.training.muon import MuonWithAdamW

AnyOptimizer = torch.optim.Optimizer | MuonWithAdamW


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Batches, dropout and learning rate follow from the step."""

    step: int  # optimizer steps done
    tokens: int  # training tokens seen
    seconds: float  # spent training, over all resumptions


def save_checkpoint(
    run: str | Path,
    progress: Progress,
    model: nn.Module,
    optimizer: AnyOptimizer,
    files: Mapping[str, str],
) -> Path:
    """Write a checkpoint of a run folder and remove the one before.

    Of what lies beside it, only the run's other `step-…` folders go: what a user puts there stays, and no link is
    followed.

    Args:
        files: text files to keep beside the weights (config, tokenizer), by name.

    Raises:
        OSError: the disk is full, say; the checkpoint before is whole.
        ValueError: `checkpoints` is a link.
    """
    final = checkpoint_folder(run, progress.step)
    refuse_linked_checkpoints(run)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():  # the same step again, after a resume: it is complete
        return final
    writing = unfinished(final)
    with concerning(final, writing):
        if writing.is_symlink():
            writing.unlink()
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        try:
            _write(writing, run, progress, model, optimizer, files)
        except OSError:  # a full disk keeps no half of it
            shutil.rmtree(writing, ignore_errors=True)
            raise
        writing.rename(final)
        sync(final.parent)
    remove_other_checkpoints(final)
    return final


def refuse_linked_checkpoints(run: str | Path) -> None:
    """Raise ValueError where a run's `checkpoints` is a link: a save removes older ones, which may be another run's."""
    folder = checkpoint_folder(run, 0).parent
    if folder.is_symlink():
        raise ValueError(
            f"{folder} is a link to {folder.resolve()}; a save removes the older checkpoints beside the new one, so it "
            "must be a folder of the run's own. Remove the link; to keep a run elsewhere, let the run's folder be one"
        )


def _write(
    writing: Path,
    run: str | Path,
    progress: Progress,
    model: nn.Module,
    optimizer: AnyOptimizer,
    files: Mapping[str, str],
) -> None:
    """Fill a checkpoint's folder, and wait until it is on the disk."""
    write_tensors(model.state_dict(), writing / WEIGHTS)
    write_tensors(_optimizer_tensors(model, optimizer), writing / OPTIMIZER)
    for name, text in files.items():
        (writing / name).write_text(text, encoding="utf-8")
    state: dict[str, Any] = {
        "step": progress.step,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
    }
    metrics = Path(run) / METRICS
    if metrics.is_file():  # that a resumed run can say where its curve was cut or exchanged
        sync(metrics)
        state["metrics"] = {"bytes": metrics.stat().st_size, "sha256": sha256_of(metrics)}
    (writing / STATE).write_text(table_of(writing, state), encoding="utf-8")
    for path in writing.iterdir():
        sync(path)
    sync(writing)


def load_checkpoint(
    checkpoint: str | Path, model: nn.Module, optimizer: AnyOptimizer | None = None
) -> Progress:
    """Restore weights (and optimizer state) in place; return where the run stood.

    Raises:
        ValueError: a file is missing or damaged, named with what to do.
    """
    checkpoint = Path(checkpoint)
    state = verify(checkpoint)
    model.load_state_dict(read_tensors(checkpoint / WEIGHTS))
    if optimizer is not None:
        _restore_optimizer(model, optimizer, read_tensors(checkpoint / OPTIMIZER))
    return Progress(step=state["step"], tokens=state["tokens"], seconds=state["seconds"])


def verify(checkpoint: str | Path) -> dict[str, Any]:
    """Check every file against its recorded hash and return the recorded state.

    Raises:
        ValueError: a file is missing, cut short or changed.
    """
    path = Path(checkpoint) / STATE
    state = check_files(checkpoint, (*READ, OPTIMIZER))
    whole = state is not None and type(state.get("step")) is type(state.get("tokens")) is int
    if state is None or not whole or type(state.get("seconds")) not in (int, float):
        raise ValueError(
            f"{path} is missing or does not say where the run stood; restore the folder from a copy, or delete it to "
            "start the run anew"
        )
    return state


def _optimizer_tensors(model: nn.Module, optimizer: AnyOptimizer) -> dict[str, Tensor]:
    """Optimizer state by parameter name: `layers.0.….weight/exp_avg`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": torch.as_tensor(value)
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }


def _restore_optimizer(model: nn.Module, optimizer: AnyOptimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, value in tensors.items():
        parameter_name, key = name.rsplit("/", 1)
        parameter = parameters[parameter_name]
        # Fused AdamW keeps its step counter on the parameter's device.
        optimizer.state[parameter][key] = value.to(parameter.device)
