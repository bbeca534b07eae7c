"""The same random numbers for runs in different number formats: drawn in fp32, whatever type asks for them.

Under one seed PyTorch gives half precision other numbers than fp32 in places: the last 16 of normal ones, where their
count is no multiple of 16.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from loopscope.guards import RandomState, device_of, same_random_numbers
from loopscope.recurrence import AbstractLoopedLM, unroll

_NEW = {torch.randn, torch.rand, torch.normal, torch.randn_like, torch.rand_like, torch.bernoulli}
_IN_PLACE = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.bernoulli_, torch.Tensor.exponential_}
_HALF = (torch.bfloat16, torch.float16)


class _DrawnInFp32(TorchFunctionMode):
    """Draws what is asked for in half precision in fp32, and rounds it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _IN_PLACE and args[0].dtype in _HALF:
            return args[0].copy_(func(args[0].float(), *args[1:], **kwargs))
        if func in _NEW:
            given = next((each for each in args if isinstance(each, Tensor)), None)
            dtype = kwargs.get("dtype") or (given.dtype if given is not None else torch.get_default_dtype())
            if dtype in _HALF:
                wide = [each.float() if isinstance(each, Tensor) else each for each in args]
                asked = {name: value for name, value in kwargs.items() if name != "dtype"}
                fp32 = {} if given is not None else {"dtype": torch.float32}
                return func(*wide, **asked, **fp32).to(dtype)
        return func(*args, **kwargs)


class Draws:
    """Torch's, numpy's and Python's generators at the moment this is made.

    Args:
        device: where the model computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.torch = RandomState(device)
        self.numpy, self.python = np.random.get_state(), random.getstate()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers once more inside; afterwards the generators are as they were before."""
        with same_random_numbers(self.device), self.torch.again():
            np.random.set_state(self.numpy)
            random.setstate(self.python)
            yield

    def moved(self) -> bool:
        """Return whether numbers were drawn since."""
        return (
            self.torch.moved()
            or self.python != random.getstate()
            or repr(self.numpy) != repr(np.random.get_state())
        )


@torch.no_grad()
def draws_of(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], draws: bool | None = None
) -> Draws | None:
    """Return the generators as they are, for a model whose loops draw random numbers; None for any other.

    Args:
        draws: whether it does; None: that is found out with the first sequence.
    """
    drawn = Draws(device_of(model))
    if draws is None:
        with drawn.again():
            for _ in unroll(model, input_ids[:1]):
                pass
            draws = drawn.moved()
    return drawn if draws else None


@contextmanager
def same_draws(drawn: Draws) -> Iterator[None]:
    """Draw the numbers that follow `drawn`, torch's in fp32; the generators are as they were afterwards."""
    with drawn.again(), _DrawnInFp32():
        yield
