"""A weight whose gradient is summed over many uses in its own width, where products are computed in a narrower one.

Autocast casts a weight once for all loops, and what each loop sends back is added up in the cast's dtype: in bf16 that
sum is off by 0.4 % of its size after 4 uses and by 10 % after 256. No precision of a reduction over processes mends it,
because it comes before that. Here each use's share is widened first. It costs a pass over the gradient for each use,
and no memory that stays: the cast is one (with `cpu_ops` off there is none, and the weight stays as it is). The fast
operations for a CPU (`shared_weight`) sum so anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from loopscope.numerics import matmul_dtype
from loopscope.ops.dispatch import is_on
from loopscope.ops.step_scope import cast_weight

USES = 8
"""Loops from which a step sums so: below, the sum is hardly worse than its terms, which are rounded to bf16 too."""

_on: ContextVar[bool] = ContextVar("wide_sums", default=False)


@contextmanager
def wide_sums(on: bool) -> Iterator[None]:
    """Sum gradients of weights in their own width inside, within a `step_scope`."""
    before = _on.set(on)
    try:
        yield
    finally:
        _on.reset(before)


def summed_wide(weight: Tensor) -> Tensor:
    """Return a weight for one use: itself, or where `wide_sums` is on what autocast would make of it."""
    if torch.compiler.is_compiling():  # asked first: a compiled layer would break at the variable
        return weight
    if not _on.get() or not torch.is_grad_enabled():
        return weight
    dtype = matmul_dtype(weight)
    if dtype == weight.dtype or not weight.requires_grad or not is_on("cast_weight"):
        return weight
    return _Cast.apply(weight, cast_weight(weight, dtype))


class _Cast(torch.autograd.Function):
    """An alias of a weight's cast, through which one use's gradient comes back widened."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, cast: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return cast.view_as(cast)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:
        return grad_out.to(ctx.dtype), None
