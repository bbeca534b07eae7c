"""A layer's matrix as one operation for a CPU: x @ weight.T, whose weight's gradient is summed over all its uses.

Of an x that a norm made (`rms_norm.norm_inputs`) it keeps what the norm was given, not what it made of it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics import matmul_dtype
from loopscope.ops import reference
from loopscope.ops.dispatch import cpu_ops_apply, is_plain
from loopscope.ops.rms_norm import norm_inputs, transposed_normal
from loopscope.ops.shared_weight import SharedWeight, shared_weight
from loopscope.ops.step_scope import cast_weight
from loopscope.ops.wide_sum import summed_wide


def linear(x: Float[Tensor, "*batch dim"], module: Callable[[Tensor], Tensor]) -> Float[Tensor, "*batch out"]:
    """Return what a matrix, a `nn.Linear` or anything in its place, makes of x."""
    if isinstance(module, nn.Linear) and module.bias is None and cpu_ops_apply("linear", x, module):
        return shared_linear(x, module.weight)
    return plain_linear(x, module)


def plain_linear(
    x: Float[Tensor, "*batch dim"], module: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*batch out"]:
    """Return what `linear` does, by PyTorch's own operation."""
    if isinstance(module, nn.Linear) and is_plain(module):
        # What calling it does, without the call: a tenth of a cached step's time goes into calls of modules.
        return F.linear(x, summed_wide(module.weight), module.bias)
    return module(x)


def shared_linear(
    x: Float[Tensor, "*batch dim"], weight: Float[Tensor, "out dim"]
) -> Float[Tensor, "*batch out"]:
    """Return x @ weight.T, in autocast's dtype where that is on; the fast operation itself."""
    shared = shared_weight(weight)
    return _Linear.apply(*keepable(x), shared.matrix, shared)


def matmul_linear(
    x: Float[Tensor, "*batch dim"], matrix: Float[Tensor, "out dim"]
) -> Float[Tensor, "*batch out"]:
    """Return x · matrixᵀ in a tensor of its own, which is no view of another."""
    out = x.new_empty(*x.shape[:-1], len(matrix))
    torch.mm(x.reshape(-1, x.shape[-1]), matrix.T, out=out.view(-1, len(matrix)))
    return out


def keepable(x: Tensor) -> tuple[Tensor, "KeptInput"]:
    """Return x in its matmul's dtype, and what a backward pass can make it of again."""
    narrow = x.to(matmul_dtype(x))  # cast once, though several matrices may use it
    return narrow, KeptInput(narrow, x)


class KeptInput:
    """What an operation keeps of its input: itself, or what a norm made it of.

    Attributes:
        tensors: to save for the backward pass: x or the norm's input, the norm's weight, its 1/rms.
        eps: the norm's, or None where x itself is kept.
    """

    def __init__(self, narrow: Tensor, x: Tensor) -> None:
        inputs = norm_inputs(x) if narrow is x else None
        self.eps = None if inputs is None else inputs.eps
        self.tensors = (narrow, None, None) if inputs is None else inputs[:3]


def kept_input(
    saved: tuple[Tensor, Tensor | None, Tensor | None], eps: float | None, dtype: torch.dtype
) -> Tensor:
    """Return an operation's input from what it kept, with its history: for second derivatives."""
    x, weight, _ = saved
    return x if eps is None else reference.rms_norm(x, weight, eps).to(dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: KeptInput, matrix: Tensor, shared: SharedWeight) -> Tensor:
        ctx.save_for_backward(*kept.tensors, matrix)
        ctx.eps, ctx.shared, ctx.dtype = kept.eps, shared, x.dtype
        return matmul_linear(x, cast_weight(matrix, x.dtype))

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *saved, matrix = ctx.saved_tensors
        needs_x, _, needs_matrix, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a second derivative is wanted
            inputs = kept_input(tuple(saved), ctx.eps, ctx.dtype), matrix
            grad_x, grad_matrix = reference.recorded_gradients(
                reference.linear, inputs, (needs_x, needs_matrix), grad_out
            )
            return grad_x, None, grad_matrix, None
        x, norm_weight, inverse = saved
        rows, grad_x = grad_out.flatten(0, -2), None
        if ctx.shared.wanted():
            if inverse is None:
                ctx.shared.add_gradient(rows, x.flatten(0, -2))
            else:
                ctx.shared.add_transposed_gradient(
                    transposed_normal(x, norm_weight, inverse, ctx.dtype), rows
                )
        if needs_x:
            grad_x = torch.mm(rows, cast_weight(matrix, ctx.dtype)).view(x.shape)
        return grad_x, None, None, None
