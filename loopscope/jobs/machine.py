"""The machine that a job computes on: its device, threads and fast operations, as a user names them."""

import torch

from loopscope.ops.dispatch import use_cpu_ops
from loopscope.training.hardware import resolve_device

__all__ = ["device_named", "use_cpu_ops", "use_threads"]


def use_threads(count: int | None) -> None:
    """Compute with so many CPU threads; None leaves torch's choice."""
    if count:
        torch.set_num_threads(count)


def device_named(name: str) -> torch.device:
    """The device that a word stands for: auto, cpu, cuda, mps.

    Raises:
        ValueError: it is not there.
    """
    try:
        return resolve_device(name)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("training.")) from None
