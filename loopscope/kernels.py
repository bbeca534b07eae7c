"""What a training step's operations on a CPU are made of: chains of passes, products, and what a step keeps for them.

Chains are element-wise passes over activations. Hundreds of passes over memory lie between the matrix products of a
step; where it asks for it, `torch.compile` makes one loop of each chain. It needs a C++ compiler, and a second or so
for each chain, once a machine. Whole layers gain nothing on a CPU, because attention with dropout is slower there than
`model.attend`'s. Outside `in_one_loop`, chains run as PyTorch runs them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

_in_one_loop: ContextVar[bool] = ContextVar("in_one_loop", default=False)
_scratch: ContextVar[dict[Any, Tensor] | None] = ContextVar("scratch", default=None)
_made: ContextVar[dict[Any, Any] | None] = ContextVar("made", default=None)

FEW = 2**18
"""Numbers that are widened at a time, so that they are still in the cache."""

ALONE_ROWS, ALONE_COLUMNS = range(321, 1280), range(321, 896)
"""Sizes of a narrow product that oneDNN leaves to one of two threads (`product`)."""

Made = TypeVar("Made")


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
    before = _in_one_loop.set(in_one_loop), _made.set({}), _scratch.set({})
    try:
        yield
    finally:
        _in_one_loop.reset(before[0])
        _made.reset(before[1])
        _scratch.reset(before[2])


def fuses() -> bool:
    """Whether kernels are compiled here."""
    return _in_one_loop.get()


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


def _turned(x: Tensor) -> Tensor:
    return x.T.contiguous()


turned = Kernel(_turned, _turned)
"""A matrix with its axes changed, in one piece."""


def product(
    left: Float[Tensor, "rows inner"], right: Float[Tensor, "inner columns"], out: Tensor | None = None
) -> Float[Tensor, "rows columns"]:
    """left · right, 256 rows at a time where that is faster.

    oneDNN 3.x leaves a narrow product of `ALONE_ROWS` by `ALONE_COLUMNS` to one of two threads: 512 × 2048 by
    2048 × 512 runs at 970 GFLOP/s then, and at 1,540 in two parts (`docs/results`, 2026-11-25).
    """
    rows, columns = len(left), right.shape[1]
    alone = rows in ALONE_ROWS and columns in ALONE_COLUMNS and left.element_size() == 2
    if not alone or left.device.type != "cpu" or torch.get_num_threads() == 1:
        return torch.mm(left, right) if out is None else torch.mm(left, right, out=out)
    out = left.new_empty(rows, columns) if out is None else out
    for start in range(0, rows, 256):
        part = slice(start, start + 256)
        torch.mm(left[part], right, out=out[part])
    return out


def linear(x: Float[Tensor, "*batch dim"], matrix: Float[Tensor, "out dim"]) -> Float[Tensor, "*batch out"]:
    """x · matrixᵀ by `product`, in a tensor of its own."""
    out = x.new_empty(*x.shape[:-1], len(matrix))
    product(x.reshape(-1, x.shape[-1]), matrix.T, out=out.view(-1, len(matrix)))
    return out


def _add_(total: Tensor, share: Tensor, factor: Tensor) -> None:
    """A few at a time: as one operation it takes 65 ms for ten million numbers on one thread, and so 5."""
    for part in range(0, len(total), FEW):
        own = share[part : part + FEW]
        wider = scratch("wider", own.shape, total.dtype).copy_(own)
        total[part : part + FEW].add_(wider.mul_(factor))


def _add_formula_(total: Tensor, share: Tensor, factor: Tensor) -> None:
    total.add_(share.to(total.dtype) * factor)


_add = Kernel(_add_, _add_formula_)


def add_(total: Tensor, share: Tensor, factor: float = 1.0) -> None:
    """total += factor · share of a narrower type; both in one piece, and laid out alike."""
    if total.device.type != "cpu":
        total.add_(share, alpha=factor)
        return
    _add(total.view(-1), share.view(-1), total.new_tensor(factor))
