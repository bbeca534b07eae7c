"""Context managers that leave a model and the random numbers as they were, and waits for a device."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

_ABSENT = object()


def device_of(model: nn.Module) -> torch.device:
    """Return where the model computes: its first parameter's device; the CPU for one without parameters."""
    devices = (parameter.device for parameter in model.parameters())
    # A weight that lies elsewhere until it is used has no device.
    return next((device for device in devices if device.type != "meta"), torch.device("cpu"))


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
def exchanged(
    owner: Any, answer: Callable[[Callable[..., Any]], Callable[..., Any]], name: str = "forward"
) -> Iterator[None]:
    """Make `answer(what is there)` an object's method for a while; afterwards it is as it was."""
    before = owner.__dict__.get(name, _ABSENT)
    setattr(owner, name, answer(getattr(owner, name)))
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


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

    def moved(self) -> bool:
        """Return whether numbers were drawn since."""
        if not torch.equal(torch.get_rng_state(), self.cpu):
            return True
        if self.device is None or self.own is None:
            return False
        return not torch.equal(torch.cuda.get_rng_state(self.device), self.own)
