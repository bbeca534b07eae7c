"""Context managers that leave a model and the random numbers as they were, and waits for a device."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WIDE = (torch.float32, torch.float64)
"""Types in which figures are measured; others are narrower."""


def device_of(model: nn.Module) -> torch.device:
    """Return where the model computes: its first parameter's device; the CPU for one without parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def wait(device: torch.device) -> None:
    """Wait until an accelerator has finished what was queued."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; every part's own mode comes back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def widened(model: nn.Module, buffers: bool = False) -> Iterator[set[torch.dtype]]:
    """Replace parameters in half precision by fp32 copies for a while, tied ones by one copy.

    They themselves are not touched: widening a parameter's own data would make autograd forget its gradient
    accumulator, and with it the hooks through which DDP exchanges gradients.

    Args:
        buffers: widen buffers in half precision too.

    Yields:
        The types that were replaced.
    """
    copies: dict[int, Tensor] = {}  # one per tensor, so that tied weights stay tied
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            parameters: dict[str, Any] = module._parameters
            own_buffers: dict[str, Any] = module._buffers
            for table in (parameters, own_buffers) if buffers else (parameters,):
                for name, tensor in list(table.items()):
                    if tensor is None or not tensor.is_floating_point() or tensor.dtype in WIDE:
                        continue
                    if id(tensor) not in copies:
                        wide = tensor.detach().float()
                        copies[id(tensor)] = nn.Parameter(wide) if table is parameters else wide
                    replaced.append((table, name, tensor))
                    table[name] = copies[id(tensor)]
        yield {tensor.dtype for _, _, tensor in replaced}
    finally:
        for table, name, tensor in replaced:
            table[name] = tensor


@contextmanager
def widened_to_run(model: nn.Module, runs: Callable[[], bool]) -> Iterator[set[torch.dtype]]:
    """Replace parameters in half precision by fp32 copies for a while; buffers only where the model runs no other way.

    Some forwards ask for the type that a buffer has (rotary tables in bf16), so buffers keep theirs if they can.

    Args:
        runs: tries the model as it is inside, and says whether it ran; asked only where a buffer is in half precision.

    Yields:
        The types that were replaced.
    """
    with ExitStack() as stack:
        found = stack.enter_context(widened(model))
        narrow = any(buffer.is_floating_point() and buffer.dtype not in WIDE for buffer in model.buffers())
        if narrow and not runs():
            found |= stack.enter_context(widened(model, buffers=True))
        yield found


@contextmanager
def same_random_numbers(device: torch.device) -> Iterator[None]:
    """Put Python's, numpy's and torch's generators (the CPU's, and a CUDA device's) back afterwards."""
    own, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put a model into evaluation mode and full precision for a while; everything is as it was afterwards.

    - every module's own training flag is put back, so that parts kept in evaluation mode stay in it; in
      evaluation mode nothing follows a moving average or draws dropout;
    - random numbers drawn inside (for a random first state, say) are drawn again by the training;
    - autocast is off inside. A nested context neither fills nor clears the cache of casts around it.

    Gradients are the caller's: use `torch.autograd.grad`, never `backward`, and `.grad` is not touched.
    """
    modes = [(module, module.training) for module in model.modules()]
    with same_random_numbers(device), torch.autocast(device.type, enabled=False):
        try:
            # Flags, not `eval()`: a model may override `train` and do more than switch.
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


class RandomState:
    """The CPU's generator, and that of the device, at the moment this is made.

    Args:
        device: where the model computes. Of kinds other than CUDA, only the CPU's generator is kept.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device if device.type == "cuda" else None
        self.cpu = torch.get_rng_state()
        self.own = None if self.device is None else torch.cuda.get_rng_state(self.device)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers once more inside; afterwards the generators are as they were before."""
        with torch.random.fork_rng(devices=[] if self.device is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.device is not None and self.own is not None:
                torch.cuda.set_rng_state(self.own, self.device)
            yield
