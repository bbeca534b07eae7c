"""What the parts of `loopscope evaluate` ask alike: on which text, on which machine. Light to import."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from loopscope.cli.arguments import check_counts

if TYPE_CHECKING:
    import torch

    from loopscope.jobs.opened import Subject
    from loopscope.jobs.text import HeldOut
    from loopscope.results import ModelEvaluation


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
    check_counts(command, "windows", "length", "batch", "threads")
    import torch

    from loopscope.recurrence import check_loops
    from loopscope.training.hardware import resolve_device

    if (loops := getattr(command, "loops", None)) is not None:
        check_loops(loops)

    if command.threads:
        torch.set_num_threads(command.threads)
    try:
        return resolve_device(command.device)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("training.")) from None


def print_json(evaluations: "Sequence[ModelEvaluation]") -> None:
    """One evaluation as it is, several as `models`."""
    from loopscope.results import to_json

    one = len(evaluations) == 1
    print(to_json(evaluations[0] if one else {"models": [asdict(each) for each in evaluations]}))


def text_for(subject: "Subject", command: OnText) -> "HeldOut":
    """The held-out text that a command names for a model."""
    from loopscope.jobs.text import held_out

    return held_out(subject, command.data, command.windows, command.length)
