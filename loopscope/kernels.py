"""Chains of element-wise passes over activations, each as one loop where a training step asks for it.

Between the matrix products of a step lie hundreds of passes over memory. `torch.compile` makes one loop of a chain; it
needs a C++ compiler, and a second or so for each chain, once a machine. Whole layers gain nothing on a CPU, because
attention with dropout is slower there than `model.attend`'s. Outside `in_one_loop`, chains run as PyTorch runs them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

_in_one_loop: ContextVar[bool] = ContextVar("in_one_loop", default=False)
_scratch: ContextVar[dict[Any, Tensor] | None] = ContextVar("scratch", default=None)
_narrowed: ContextVar[dict[Any, tuple[Tensor, Tensor]] | None] = ContextVar("narrowed", default=None)


class Kernel:
    """A chain of passes in two forms, which are equal but for rounding.

    Args:
        plain: the fastest way with PyTorch's own operations.
        formula: the same without regard to passes, for the compiler to make one loop of.
    """

    def __init__(self, plain: Callable[..., Any], formula: Callable[..., Any]) -> None:
        self.plain = plain
        self.formula = formula

    def __call__(self, *inputs: Any) -> Any:
        if _in_one_loop.get() and inputs[0].device.type == "cpu":
            return self.compiled(*inputs)
        return self.plain(*inputs)

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        """Made when it is first called for: the compiler takes a second to import."""
        return torch.compile(self.formula)


@contextmanager
def step(in_one_loop: bool = False) -> Iterator[None]:
    """A training step, forward and backward. No weight changes meanwhile, so each is narrowed once; and what operations
    write and read again before they end is written to the same place every time.

    Args:
        in_one_loop: whether kernels are compiled.
    """
    before = _in_one_loop.set(in_one_loop), _narrowed.set({}), _scratch.set({})
    try:
        yield
    finally:
        _in_one_loop.reset(before[0])
        _narrowed.reset(before[1])
        _scratch.reset(before[2])


def fuses() -> bool:
    """Whether kernels are compiled here."""
    return _in_one_loop.get()


def narrowed(weight: Tensor, kind: torch.dtype) -> Tensor:
    """A weight in another type; within a step made once and kept until its end."""
    weight = weight.detach()
    if weight.dtype == kind:
        return weight
    kept = _narrowed.get()
    if kept is None:
        return weight.to(kind)
    key = weight.data_ptr(), weight.shape, weight.stride(), kind
    if key not in kept:
        kept[key] = weight.to(kind), weight  # itself too, so that nothing else comes to lie where it is
    return kept[key][0]


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
