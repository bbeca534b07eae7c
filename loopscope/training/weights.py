"""Starting a run from weights of another: fine-tuning, or a gate's second stage on a trained model."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from loopscope.training.checkpoint import WEIGHTS, newest_checkpoint

NEW = ("gate.",)
"""Parameters that may be missing there and keep their own start: a gate can be added to a trained model."""


def load_weights(model: nn.Module, source: str) -> None:
    """Copy weights from a run folder (its newest checkpoint), a checkpoint or a model folder.

    Raises:
        ValueError: nothing to load there, or tensors that do not fit, named with both shapes.
    """
    folder = Path(source).expanduser()
    if not (folder / WEIGHTS).is_file():
        checkpoint = newest_checkpoint(folder)
        if checkpoint is None:
            raise ValueError(
                f"training.weights {source!r} holds neither {WEIGHTS} nor checkpoints; give a run or model folder"
            )
        folder = checkpoint
    try:
        there = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} is cut short or damaged ({error}); restore it") from error
    here = model.state_dict()
    missing = [name for name in here if name not in there and not name.startswith(NEW)]
    unknown = [name for name in there if name not in here]
    differ = [
        f"{name} is {tuple(there[name].shape)} there, {tuple(here[name].shape)} here"
        for name in there.keys() & here.keys()
        if there[name].shape != here[name].shape
    ]
    problems = (
        [f"missing {name}" for name in missing] + [f"unknown {name}" for name in unknown] + sorted(differ)
    )
    if problems:
        raise ValueError(
            f"{folder / WEIGHTS} does not fit this model ({len(problems)} differences): "
            + "; ".join(problems[:5])
        )
    model.load_state_dict(there, strict=False)
