"""down(silu(gate x) · up x) as one operation for a CPU, which keeps x and two products.

Autograd would keep silu's product for the last matrix as well, a third more, and what a norm made of the state before
the first ones. Here both are made again in the backward pass, silu once, and every loop's share of a weight's gradient
is added to the others in the weight's own width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import product_type, wide
from loopscope.ops.dispatch import cast_once, recorded
from loopscope.ops.fusion import Kernel
from loopscope.ops.matmul import linear, product, turned
from loopscope.ops.rms_norm import RMSNorm, narrow_normal, rms_norm, scaled_turned, slopes
from loopscope.ops.shared_weight import Gathered, gathered
from loopscope.ops.step_scope import narrowed, scratch


def gated(
    x: Float[Tensor, "*batch dim"],
    gate: Float[Tensor, "width dim"],
    up: Float[Tensor, "width dim"],
    down: Float[Tensor, "dim width"],
    norm: RMSNorm | None = None,
) -> Float[Tensor, "*batch dim"]:
    """The feed-forward of x, or of what `norm` makes of it. Products are in autocast's type where that is on."""
    own = [gathered(matrix) for matrix in (gate, up, down)]
    matrices = (one.matrix for one in own)
    if norm is None:
        return _Gated.apply(cast_once(x), *matrices, None, None, x.dtype, own)
    return _Gated.apply(x, *matrices, norm.weight, norm.epsilon(x), product_type(x), own)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
        weight: Tensor | None,
        eps: float | None,
        kind: torch.dtype,
        own: list[Gathered],
    ) -> Tensor:
        ctx.eps, ctx.kind, ctx.own = eps, kind, own
        normal, inverse = (x, None) if eps is None else narrow_normal(x, weight, eps, kind)
        kind = normal.dtype
        opened, raised = (linear(normal, narrowed(matrix, kind)) for matrix in (gate, up))
        ctx.save_for_backward(x, gate, up, down, weight, inverse, opened, raised)
        return linear(silu_product(opened, raised), narrowed(down, kind))

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, down, weight, inverse, opened, raised = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: by autograd's own formulas, recorded

            def formula(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, weight: Tensor | None) -> Tensor:
                normal = x if ctx.eps is None else rms_norm(x, weight, ctx.eps).to(ctx.kind)
                kind = normal.dtype
                inner = F.silu(F.linear(normal, gate.to(kind))) * F.linear(normal, up.to(kind))
                return F.linear(inner, down.to(kind))

            inputs = x, gate, up, down, weight
            return *recorded(formula, inputs, ctx.needs_input_grad, above), None, None, None
        kind, needed = opened.dtype, ctx.needs_input_grad
        by_x = by_weight = None
        above, (own_gate, own_up, own_down) = above.flatten(0, -2), ctx.own
        opened, raised = opened.flatten(0, -2), raised.flatten(0, -2)
        inner, by_opened, by_raised = silu_slopes(opened, raised, product(above, narrowed(down, kind)))
        if own_down.wanted():
            own_down.add(above, inner)
        del inner
        pairs = (own_gate, by_opened), (own_up, by_raised)
        if wanted := [(one, by_one) for one, by_one in pairs if one.wanted()]:
            flat = turned(x.flatten(0, -2)) if inverse is None else scaled_turned(x, weight, inverse, kind)
            for one, by_one in wanted:
                one.add_turned(flat, by_one)
        if needed[0] or needed[4]:
            by_x = product(by_opened, narrowed(gate, kind))
            by_x = torch.addmm(by_x, by_raised, narrowed(up, kind), out=by_x).view(x.shape)
        if inverse is not None and by_x is not None:
            by_x, by_weight = slopes(by_x, x, weight, inverse, (needed[0], needed[4]))
        return by_x, None, None, None, by_weight, None, None, None


def _silu_slopes(opened: Tensor, raised: Tensor, by_inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The product again, and gradients of both factors' inputs; `by_inner` is used up."""
    silu = F.silu(opened)
    inner = silu * raised
    by_raised = silu.mul_(by_inner)
    return inner, torch.ops.aten.silu_backward(by_inner.mul_(raised), opened), by_raised


def _silu_slopes_formula(opened: Tensor, raised: Tensor, by_inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kind, by_opened = opened.dtype, by_inner
    opened, raised, by_inner = wide(opened), wide(raised), wide(by_inner)
    share = torch.sigmoid(opened)
    silu = opened * share
    inner, by_raised = (silu * raised).to(kind), (silu * by_inner).to(kind)
    by_opened.copy_((by_inner * raised * share * (1 + opened - silu)).to(kind))
    return inner, by_opened, by_raised


def _silu_product_formula(opened: Tensor, raised: Tensor) -> Tensor:
    return (F.silu(wide(opened)) * wide(raised)).to(opened.dtype)


def _silu_product(opened: Tensor, raised: Tensor) -> Tensor:
    out = scratch("product", opened.shape, opened.dtype)
    return torch.ops.aten.silu.out(opened, out=out).mul_(raised)


silu_product = Kernel(_silu_product, _silu_product_formula)
silu_slopes = Kernel(_silu_slopes, _silu_slopes_formula)
