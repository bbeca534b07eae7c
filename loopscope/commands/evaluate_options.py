"""What the parts of `loopscope evaluate` ask alike: on which text, on which machine. Light to import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from loopscope.held_out import HeldOut
    from loopscope.subject import Subject


@dataclass(frozen=True)
class OnText:
    """Options of a command that evaluates models on held-out text."""

    data: str | None = None
    """Text files (a path or a glob), stdlib, a Hugging Face dataset, or tokens.safetensors with input_ids.
    By default a run's whole validation text; other models get 256 windows of stdlib."""
    windows: int | None = None
    """At most so many windows, spread evenly."""
    length: int | None = None
    """Tokens of a window; the trained length by default."""
    batch: int = 16
    """Windows at a time: memory grows with it, results do not change."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    device: str = "cpu"
    """auto, cpu, cuda, mps."""
    json: bool = False
    """Print JSON, and nothing else."""


def prepare_machine(command: OnText) -> "torch.device":
    """Set a command's threads, and name its device.

    Raises:
        ValueError: a number below 1, or a device that is not there.
    """
    for name in ("windows", "length", "batch", "threads"):
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be a whole number from 1 up")
    import torch

    from loopscope.training.hardware import resolve_device

    if command.threads:
        torch.set_num_threads(command.threads)
    try:
        return resolve_device(command.device)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("training.")) from None


def text_for(subject: "Subject", command: OnText) -> "HeldOut":
    """The held-out text that a command names for a model."""
    from loopscope.held_out import held_out

    return held_out(subject, command.data, command.windows, command.length)
