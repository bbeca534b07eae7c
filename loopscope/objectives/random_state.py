"""Torch's random numbers as they stood at one moment, to be drawn again without disturbing what follows."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
        """Inside, the same numbers come once more; afterwards the generators are as they were before."""
        with torch.random.fork_rng(devices=[] if self.device is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.device is not None and self.own is not None:
                torch.cuda.set_rng_state(self.own, self.device)
            yield
