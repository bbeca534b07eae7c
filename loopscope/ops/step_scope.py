"""What the operations of one training step share: weights cast once, and memory that is written again and again."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

from loopscope.ops.fusion import _in_one_loop

_scratch: ContextVar[dict[Any, Tensor] | None] = ContextVar("scratch", default=None)
_made: ContextVar[dict[Any, Any] | None] = ContextVar("made", default=None)

Made = TypeVar("Made")


@contextmanager
def step(in_one_loop: bool = False) -> Iterator[None]:
    """A training step, forward and backward. No weight changes meanwhile, so each is narrowed once; and what operations
    write and read again before they end is written to the same place every time.

    Args:
        in_one_loop: whether kernels are compiled.
    """
    before = _in_one_loop.set(in_one_loop), _made.set({}), _scratch.set({})
    try:
        yield
    finally:
        _in_one_loop.reset(before[0])
        _made.reset(before[1])
        _scratch.reset(before[2])


def for_a_step(weight: Tensor, use: Any, make: Callable[[], Made]) -> Made:
    """What is made of a weight: within a step made once for each use, and kept until its end."""
    made = _made.get()
    if made is None:
        return make()
    key = weight.data_ptr(), weight.shape, weight.stride(), use
    if key not in made:
        made[key] = make(), weight  # itself too, so that nothing else comes to lie where it is
    return made[key][0]


def narrowed(weight: Tensor, kind: torch.dtype) -> Tensor:
    """A weight in another type, without its history."""
    weight = weight.detach()
    if weight.dtype == kind:
        return weight
    return for_a_step(weight, kind, lambda: weight.to(kind))


def scratch(use: str, shape: Sequence[int], kind: torch.dtype) -> Tensor:
    """Room on a CPU for what an operation needs until it ends, and never gives to anybody else.

    Within a step it is the same memory for every use of one name and type. Freed one by one between what is
    kept, such blocks leave holes that blocks of the same size do not fit into again (a C library's aligned blocks
    need a little more than their size), a third of an fp32 step's memory.
    """
    kept = _scratch.get()
    if kept is None:
        return torch.empty(shape, dtype=kind)
    size, key = math.prod(shape), (use, kind)
    if key not in kept or kept[key].numel() < size:
        kept[key] = torch.empty(size, dtype=kind)
    return kept[key][:size].view(*shape)
