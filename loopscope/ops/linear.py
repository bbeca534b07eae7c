"""A layer's matrix as one operation for a CPU, which keeps a normalised state's input, not what the norm made of it."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import product_type
from loopscope.ops.dispatch import cast_once, recorded
from loopscope.ops.matmul import linear, product
from loopscope.ops.rms_norm import RMSNorm, narrow_normal, rms_norm, scaled_turned, slopes
from loopscope.ops.shared_weight import Gathered, gathered
from loopscope.ops.step_scope import narrowed


def gathered_linear(
    x: Float[Tensor, "*batch dim"], matrix: Float[Tensor, "out dim"]
) -> Float[Tensor, "*batch out"]:
    """x @ matrix.T, in autocast's type where that is on; the matrix's gradient is gathered over its uses."""
    own = gathered(matrix)
    return _Linear.apply(cast_once(x), own.matrix, own)


def normed_linear(
    x: Float[Tensor, "*batch dim"], norm: RMSNorm, matrix: Float[Tensor, "out dim"]
) -> Float[Tensor, "*batch out"]:
    """norm(x) @ matrix.T, in autocast's type where that is on."""
    own = gathered(matrix)
    return _NormedLinear.apply(x, norm.weight, own.matrix, norm.epsilon(x), product_type(x), own)


class _NormedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        matrix: Tensor,
        eps: float,
        kind: torch.dtype,
        own: Gathered,
    ) -> Tensor:
        normal, inverse = narrow_normal(x, weight, eps, kind)
        ctx.save_for_backward(x, weight, matrix, inverse)
        ctx.eps, ctx.kind, ctx.own = eps, kind, own
        return linear(normal, narrowed(matrix, kind))

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, matrix, inverse = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a second derivative is wanted: by autograd's own formulas, recorded

            def formula(x: Tensor, weight: Tensor | None, matrix: Tensor) -> Tensor:
                return F.linear(rms_norm(x, weight, ctx.eps).to(ctx.kind), matrix.to(ctx.kind))

            return *recorded(formula, (x, weight, matrix), needed, above), None, None, None
        by_x = by_weight = None
        rows = above.flatten(0, -2)
        if ctx.own.wanted():
            ctx.own.add_turned(scaled_turned(x, weight, inverse, ctx.kind), rows)
        if needed[0] or needed[1]:
            by_normal = product(rows, narrowed(matrix, ctx.kind)).view(x.shape)
            by_x, by_weight = slopes(by_normal, x, weight, inverse, needed[:2])
        return by_x, by_weight, *(None,) * 4


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, own: Gathered) -> Tensor:
        ctx.save_for_backward(x, matrix)
        ctx.own = own
        return linear(x, narrowed(matrix, x.dtype))

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a second derivative is wanted: by autograd's own formula, recorded

            def formula(x: Tensor, matrix: Tensor) -> Tensor:
                return F.linear(x, matrix.to(x.dtype))

            return *recorded(formula, (x, matrix), needed, above), None
        rows = above.flatten(0, -2)
        if ctx.own.wanted():
            ctx.own.add(rows, x.flatten(0, -2))
        by_x = product(rows, narrowed(matrix, x.dtype)).view(x.shape) if needed[0] else None
        return by_x, None, None
