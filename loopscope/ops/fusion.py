"""Chains of element-wise passes over activations, as PyTorch runs them or each compiled into one loop over memory.

Hundreds of passes lie between the matrix products of a training step. Where a step fuses them (`step_scope`),
`torch.compile` makes one loop of each chain. It needs a C++ compiler, and a second or so for each chain, once a
machine. Whole layers gain nothing on a CPU: attention with dropout is slower compiled than `ops.attention`'s.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch

_fused: ContextVar[bool] = ContextVar("fused", default=False)


class Fusable:
    """A chain of passes in two forms, equal but for rounding: called, it runs the one that the step asks for.

    Args:
        plain: the fastest way with PyTorch's own operations.
        formula: the mathematics without regard to passes, for the compiler to make one loop of.
    """

    def __init__(self, plain: Callable[..., Any], formula: Callable[..., Any]) -> None:
        self.plain = plain
        self.formula = formula

    def __call__(self, *inputs: Any) -> Any:
        if fused() and inputs[0].device.type == "cpu":
            return self.compiled(*inputs)
        return self.plain(*inputs)

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        """The compiled formula, made when it is first called for: the compiler takes a second to import."""
        return torch.compile(self.formula)


def fused() -> bool:
    """Return whether element-wise chains are compiled here."""
    return _fused.get()


@contextmanager
def fuse_elementwise(on: bool) -> Iterator[None]:
    """Compile element-wise chains inside, or not."""
    before = _fused.set(on)
    try:
        yield
    finally:
        _fused.reset(before)
