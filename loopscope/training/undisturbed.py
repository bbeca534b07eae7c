"""Looking at a model in the middle of its training without changing one bit of what follows."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def same_random_numbers(device: torch.device) -> Iterator[None]:
    """Python's, numpy's and torch's generators (the CPU's, and a CUDA device's) afterwards as before."""
    own, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode, full precision, and everything as it was afterwards.

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
