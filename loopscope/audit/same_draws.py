"""The same random numbers for runs in different number formats: drawn in fp32, whatever type asks for them.

Under one seed PyTorch gives half precision other numbers than fp32 in places: the last 16 of normal ones, where their
count is no multiple of 16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from loopscope.guards import RandomState, device_of
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


@torch.no_grad()
def draws_numbers(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> bool:
    """Return whether a model's first two loops draw random numbers. Theirs are put back."""
    random = RandomState(device_of(model))
    with random.again():
        list(islice(unroll(model, input_ids[:1], max(2, model.loops)), 2))
        return random.moved()


@contextmanager
def same_draws(random: RandomState) -> Iterator[None]:
    """Draw the numbers that follow `random`, in fp32; the generators are as they were afterwards."""
    with random.again(), _DrawnInFp32():
        yield
