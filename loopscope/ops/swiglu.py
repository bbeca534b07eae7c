"""down(silu(gate x) · up x) as one operation for a CPU, which keeps x and two products.

Autograd would keep silu's product for the last matrix as well, a third more. Here silu is made again in the backward
pass, once, and so is x where a norm made it (`rms_norm.norm_inputs`). Every loop's share of a weight's gradient is
added to the others in the weight's own dtype.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics import matmul_dtype, wide
from loopscope.ops import reference
from loopscope.ops.dispatch import cpu_ops_apply
from loopscope.ops.fusion import Fusable
from loopscope.ops.linear import KeptInput, keepable, kept_input, matmul_linear, plain_linear
from loopscope.ops.matmul import transposed
from loopscope.ops.rms_norm import norm_inputs, transposed_normal
from loopscope.ops.shared_weight import SharedWeight, shared_weight
from loopscope.ops.step_scope import cast_weight, scratch_buffer


def gated_linear(
    x: Float[Tensor, "*batch dim"],
    gate: Callable[[Tensor], Tensor],
    up: Callable[[Tensor], Tensor],
    down: Callable[[Tensor], Tensor],
) -> Float[Tensor, "*batch dim"]:
    """Return down(silu(gate x) · up x), for matrices or anything in their place; as one operation where that may be."""
    given: list[Any] = [gate, up, down]
    matrices: list[nn.Linear] = [each for each in given if isinstance(each, nn.Linear) and each.bias is None]
    if len(matrices) == 3 and can_swiglu(x, *matrices):
        return swiglu(x, *(matrix.weight for matrix in matrices))
    x = x.to(matmul_dtype(x))  # once for both
    return plain_linear(F.silu(plain_linear(x, gate)) * plain_linear(x, up), down)


def swiglu(
    x: Float[Tensor, "*batch dim"],
    gate: Float[Tensor, "width dim"],
    up: Float[Tensor, "width dim"],
    down: Float[Tensor, "dim width"],
) -> Float[Tensor, "*batch dim"]:
    """Return down(silu(gate x) · up x), in autocast's dtype where that is on."""
    shared = [shared_weight(weight) for weight in (gate, up, down)]
    return _SwiGLU.apply(*keepable(x), *(one.matrix for one in shared), shared)


def can_swiglu(x: Float[Tensor, "*batch dim"], *matrices: nn.Module) -> bool:
    """Return whether `swiglu` may do the work of these matrices, which nobody may have changed or listen to.

    Not of a residual stream that is 16 bits wide itself: a model of such a width sums gradients in it, as PyTorch does.
    """
    is_wide = x.dtype in (torch.float32, torch.float64) or norm_inputs(x) is not None
    return is_wide and cpu_ops_apply("swiglu", x, *matrices)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept: KeptInput,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
        shared: list[SharedWeight],
    ) -> Tensor:
        ctx.eps, ctx.shared = kept.eps, shared
        gate_pre, up_out = (matmul_linear(x, cast_weight(matrix, x.dtype)) for matrix in (gate, up))
        ctx.save_for_backward(*kept.tensors, gate, up, down, gate_pre, up_out)
        return matmul_linear(silu_mul(gate_pre, up_out), cast_weight(down, x.dtype))

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *saved, gate, up, down, gate_pre, up_out = ctx.saved_tensors
        dtype = gate_pre.dtype
        needs_x, _, *needs_matrix, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a second derivative is wanted
            inputs = kept_input(tuple(saved), ctx.eps, dtype), gate, up, down
            grad_x, *grads = reference.recorded_gradients(
                reference.swiglu, inputs, (needs_x, *needs_matrix), grad_out
            )
            return grad_x, None, *grads, None
        x, norm_weight, inverse = saved
        grad_out, (shared_gate, shared_up, shared_down) = grad_out.flatten(0, -2), ctx.shared
        gate_pre, up_out = gate_pre.flatten(0, -2), up_out.flatten(0, -2)
        grad_inner = torch.mm(grad_out, cast_weight(down, dtype))
        inner, grad_gate, grad_up = silu_mul_backward(gate_pre, up_out, grad_inner)
        if shared_down.wanted():
            shared_down.add_gradient(grad_out, inner)
        del inner
        pairs = (shared_gate, grad_gate), (shared_up, grad_up)
        if wanted := [(shared, grad) for shared, grad in pairs if shared.wanted()]:
            if inverse is None:
                flat = transposed(x.flatten(0, -2))
            else:
                flat = transposed_normal(x, norm_weight, inverse, dtype)
            for shared, grad in wanted:
                shared.add_transposed_gradient(flat, grad)
        grad_x = None
        if needs_x:
            grad_x = torch.mm(grad_gate, cast_weight(gate, dtype))
            grad_x = torch.addmm(grad_x, grad_up, cast_weight(up, dtype), out=grad_x).view(x.shape)
        return grad_x, *(None,) * 5


def _silu_mul(gate_pre: Tensor, up_out: Tensor) -> Tensor:
    out = scratch_buffer("silu", gate_pre.shape, gate_pre.dtype)
    return torch.ops.aten.silu.out(gate_pre, out=out).mul_(up_out)


def _silu_mul_formula(gate_pre: Tensor, up_out: Tensor) -> Tensor:
    return (F.silu(wide(gate_pre)) * wide(up_out)).to(gate_pre.dtype)


def _silu_mul_backward(gate_pre: Tensor, up_out: Tensor, grad_inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return silu(gate_pre) · up_out again, and gradients by both; `grad_inner` is used up."""
    silu = F.silu(gate_pre)
    inner = silu * up_out
    grad_up = silu.mul_(grad_inner)
    return inner, torch.ops.aten.silu_backward(grad_inner.mul_(up_out), gate_pre), grad_up


def _silu_mul_backward_formula(
    gate_pre: Tensor, up_out: Tensor, grad_inner: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dtype, grad_gate = gate_pre.dtype, grad_inner
    gate_pre, up_out, grad_inner = wide(gate_pre), wide(up_out), wide(grad_inner)
    sigmoid = torch.sigmoid(gate_pre)
    silu = gate_pre * sigmoid
    inner, grad_up = (silu * up_out).to(dtype), (silu * grad_inner).to(dtype)
    grad_gate.copy_((grad_inner * up_out * sigmoid * (1 + gate_pre - silu)).to(dtype))
    return inner, grad_gate, grad_up


silu_mul = Fusable(_silu_mul, _silu_mul_formula)
silu_mul_backward = Fusable(_silu_mul_backward, _silu_mul_backward_formula)
