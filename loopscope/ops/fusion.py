"""Chains of element-wise passes over activations, as PyTorch runs them or each compiled into one loop over memory.

Hundreds of passes lie between the matrix products of a training step. Where a step asks for it (`step_scope.step`),
`torch.compile` makes one loop of each chain. It needs a C++ compiler, and a second or so for each chain, once a
machine. Whole layers gain nothing on a CPU, because attention with dropout is slower there than `ops.attention`'s.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch

_in_one_loop: ContextVar[bool] = ContextVar("in_one_loop", default=False)


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


def fuses() -> bool:
    """Whether kernels are compiled here."""
    return _in_one_loop.get()
