"""down(silu(gate x) · up x) as one operation for a CPU, which keeps x and two products.

Autograd would keep silu's product for the last matrix as well, a third more, and under autocast a 16-bit copy of every
weight. Here both are made again in the backward pass, silu once. A weight's gradient is a product over all tokens; with
the tokens' axis last on the left side (one copy) bf16 products run 1.7 times as fast, and every loop's share is added
to the others in the weight's own width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def gated(
    x: Float[Tensor, "*batch dim"],
    gate: Float[Tensor, "width dim"],
    up: Float[Tensor, "width dim"],
    down: Float[Tensor, "dim width"],
) -> Float[Tensor, "*batch dim"]:
    """The feed-forward of x. Products are in autocast's type where that is on, else in x's."""
    return _Gated.apply(cast_once(x), gate, up, down)


def cast_once(x: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    """Under autocast, in its type already: two matrices would each cast (and keep) it for themselves."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:  # which autocast leaves alone
        return x.to(torch.get_autocast_dtype(kind))
    return x


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        opened, raised = F.linear(x, gate.to(x.dtype)), F.linear(x, up.to(x.dtype))
        ctx.save_for_backward(x, gate, up, down, opened, raised)
        return F.linear(F.silu(opened).mul_(raised), down.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, down, opened, raised = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: by autograd's own formulas, recorded
            return _recorded(ctx.needs_input_grad, above, x, gate, up, down)
        kind = x.dtype
        by_gate = by_up = by_down = by_x = None
        shape, x, above = x.shape, x.flatten(0, -2), above.flatten(0, -2)
        opened, raised = opened.flatten(0, -2), raised.flatten(0, -2)
        silu = F.silu(opened)
        if ctx.needs_input_grad[3]:
            by_down = (above.T.contiguous() @ (silu * raised)).to(down.dtype)
        by_inner = above @ down.to(kind)
        by_raised = silu.mul_(by_inner)
        by_opened = torch.ops.aten.silu_backward(by_inner.mul_(raised), opened)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            turned = x.T.contiguous()
            by_gate = (turned @ by_opened).T.to(gate.dtype) if ctx.needs_input_grad[1] else None
            by_up = (turned @ by_raised).T.to(up.dtype) if ctx.needs_input_grad[2] else None
        if ctx.needs_input_grad[0]:
            by_x = by_opened @ gate.to(kind)
            by_x = torch.addmm(by_x, by_raised, up.to(kind), out=by_x).view(shape)
        return by_x, by_gate, by_up, by_down


def _recorded(
    needed: tuple[bool, ...], above: Tensor, x: Tensor, *weights: Tensor
) -> tuple[Tensor | None, ...]:
    # Aliases: the weights themselves are also in the history of x, wherever loops share them.
    aliases = [one.view_as(one) for one in (x, *weights)]
    wanted = [one for one, is_needed in zip(aliases, needed, strict=True) if is_needed]
    x, gate, up, down = aliases
    kind = x.dtype
    inner = F.silu(F.linear(x, gate.to(kind))) * F.linear(x, up.to(kind))
    out = F.linear(inner, down.to(kind))
    found = iter(torch.autograd.grad(out, wanted, above, create_graph=True))
    return tuple(next(found) if is_needed else None for is_needed in needed)
