"""The machine that a job computes on: its device, memory, threads and fast operations, as a user names them."""

import torch

from loopscope.guards import device_of
from loopscope.machine_limits import machine_bytes
from loopscope.ops.dispatch import use_cpu_ops
from loopscope.recurrence import AbstractLoopedLM
from loopscope.training.config import MOST_THREADS
from loopscope.training.hardware import resolve_device

__all__ = ["device_named", "memory_of", "placed", "use_cpu_ops", "use_threads"]


def use_threads(count: int | None) -> None:
    """Compute with so many CPU threads; None leaves torch's choice.

    Raises:
        ValueError: fewer than 1, or so many that the process could not start them.
    """
    if count is None:
        return
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"threads is {count}; it must be a whole number from 1 to {MOST_THREADS}")
    torch.set_num_threads(count)


def memory_of(device: torch.device) -> int | None:
    """Return the bytes of memory that a device has for a model: its own, or the machine's. None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine_bytes()


def placed(model: AbstractLoopedLM, device: torch.device) -> torch.device:
    """Put a model on a device, and say where it reads tokens. One whose parts a device map placed stays where it is."""
    if getattr(getattr(model, "module", None), "hf_device_map", None) is None:
        model.to(device)
        return device
    return device_of(model)


def device_named(name: str) -> torch.device:
    """The device that a word stands for: auto, cpu, cuda, mps.

    Raises:
        ValueError: it is not there.
    """
    try:
        return resolve_device(name)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("training.")) from None
