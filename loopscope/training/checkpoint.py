"""Checkpoints that survive being killed at any moment.

One checkpoint is a folder `checkpoints/step-00000100`: weights and optimizer state as safetensors (no
pickle), the resolved config, the tokenizer, and `state.json` with the step and a SHA-256 of every other
file. It is written under another name, synced to disk and renamed; only then is the previous one removed.
A folder with its final name is therefore complete, and damage that comes later is found on reading.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loopscope.results.layout import OPTIMIZER, STATE, WEIGHTS, checkpoint_folder, sync, unfinished
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

    Args:
        files: text files to keep beside the weights (config, tokenizer), by name.
    """
    final = checkpoint_folder(run, progress.step)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():  # the same step again, after a resume: it is complete
        return final
    writing = unfinished(final)
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, writing / WEIGHTS)
    save_file(_optimizer_tensors(model, optimizer), writing / OPTIMIZER)
    for name, text in files.items():
        (writing / name).write_text(text, encoding="utf-8")
    state = {
        "step": progress.step,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "sha256": {path.name: _sha256(path) for path in sorted(writing.iterdir())},
    }
    (writing / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    for path in writing.iterdir():
        sync(path)
    sync(writing)
    writing.rename(final)
    sync(final.parent)
    for other in final.parent.iterdir():
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return final


def load_checkpoint(
    checkpoint: str | Path, model: nn.Module, optimizer: AnyOptimizer | None = None
) -> Progress:
    """Restore weights (and optimizer state) in place; return where the run stood.

    Raises:
        ValueError: a file is missing or damaged, named with what to do.
    """
    checkpoint = Path(checkpoint)
    state = verify(checkpoint)
    model.load_state_dict(load_file(checkpoint / WEIGHTS))
    if optimizer is not None:
        _restore_optimizer(model, optimizer, load_file(checkpoint / OPTIMIZER))
    return Progress(step=state["step"], tokens=state["tokens"], seconds=state["seconds"])


def verify(checkpoint: str | Path) -> dict[str, Any]:
    """Check every file against its recorded hash and return the recorded state.

    Raises:
        ValueError: a file is missing, cut short or changed.
    """
    checkpoint = Path(checkpoint)
    hint = "restore the folder from a copy, or delete it to start the run anew"
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        hashes = state["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint / STATE} is missing or damaged ({error}); {hint}") from error
    for name, expected in hashes.items():
        path = checkpoint / name
        if not path.is_file():
            raise ValueError(f"{path} is missing from the checkpoint; {hint}")
        if _sha256(path) != expected:
            raise ValueError(f"{path} is cut short or was changed after it was written; {hint}")
    return state


def _optimizer_tensors(model: nn.Module, optimizer: AnyOptimizer) -> dict[str, Tensor]:
    """Optimizer state by parameter name: `layers.0.….weight/exp_avg`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": torch.as_tensor(value).contiguous()
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
