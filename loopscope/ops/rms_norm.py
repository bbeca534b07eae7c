"""RMSNorm that keeps its input and one number per token for the backward pass, not the normalised state.

PyTorch's RMSNorm on a CPU is a chain of plain operations, and keeps the normalised state in fp32 beside the input. Here
it is computed again. Parameters and state are those of `nn.RMSNorm`; the numbers are PyTorch's, bit for bit, with and
without a gradient.

The matmul after a norm would keep the normalised state too, as its input. So a norm that feeds matmuls alone
(`for_matmul`) leaves a note on what it returns: made of this x, this weight, these 1/rms. An operation that finds the
note (`norm_inputs`) keeps those, and makes the normalised state again in its backward pass. Where the result has been
changed in place, or a hook or module of somebody's own stands between, there is no note, and the state is kept as ever.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics import matmul_dtype
from loopscope.ops import reference
from loopscope.ops.dispatch import cpu_ops_apply, plain_type
from loopscope.ops.fusion import Fusable
from loopscope.ops.step_scope import scratch_buffer


class NormInputs(NamedTuple):
    """What a normalised state was made of: x · inverse · weight."""

    x: Float[Tensor, "*batch dim"]
    weight: Float[Tensor, " dim"] | None
    inverse: Float[Tensor, "*batch 1"]
    eps: float


@plain_type
class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x²) + eps) · weight, over the last axis.

    Args:
        for_matmul: what it returns goes into matmuls alone: under autocast it comes in their dtype, and with a note.
    """

    def __init__(
        self, dim: int, eps: float | None = None, elementwise_affine: bool = True, for_matmul: bool = False
    ) -> None:
        super().__init__(dim, eps=eps, elementwise_affine=elementwise_affine)
        self.for_matmul = for_matmul

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        if x.dtype not in (torch.float32, torch.float64) or not cpu_ops_apply("rms_norm", x):
            return super().forward(x)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        if not torch.is_grad_enabled():  # without the call's 20 µs: a sixth of a cached step
            return _normalise(x, self.weight, eps)[0]
        if not (self.for_matmul and cpu_ops_apply("rms_norm_linear", x, self)):
            return _RMSNorm.apply(x, self.weight, eps, None)[0]
        normal, inverse = _RMSNorm.apply(x, self.weight, eps, matmul_dtype(x))
        _leave_note(normal, NormInputs(x, self.weight, inverse, eps))
        return normal


def norm_inputs(normal: Tensor) -> NormInputs | None:
    """Return what a normalised state was made of, where that is known and neither has been changed since."""
    inputs, versions = getattr(normal, "_loopscope_norm_inputs", (None, None))
    return inputs if inputs is not None and versions == _versions(normal, inputs) else None


def _leave_note(normal: Tensor, inputs: NormInputs) -> None:
    setattr(normal, "_loopscope_norm_inputs", (inputs, _versions(normal, inputs)))  # noqa: B010 (no such field)


def _versions(normal: Tensor, inputs: NormInputs) -> list[int]:
    tensors = normal, inputs.x, inputs.weight, inputs.inverse
    return [tensor._version for tensor in tensors if tensor is not None]


def transposed_normal(x: Tensor, weight: Tensor | None, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the normalised state of any batch as [dim tokens], made again in a matmul's dtype."""
    return _transposed_scaled(x.flatten(0, -2), weight, inverse.flatten(0, -2), dtype)


class _RMSNorm(torch.autograd.Function):
    """The normalised state and 1/rms. With a dtype, in that dtype, for a matmul."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.dtype = eps, dtype
        if dtype is None:
            normal, inverse = _normalise(x, weight, eps)
        else:
            normal, inverse = _normalise_for_matmul(x, weight, eps, dtype)
        ctx.save_for_backward(x, weight, inverse)
        ctx.mark_non_differentiable(inverse)
        return normal, inverse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_out is None:
            return (None,) * 4
        x, weight, inverse = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # a second derivative is wanted
            formula = partial(_cast_norm, eps=ctx.eps, dtype=ctx.dtype)
            return *reference.recorded_gradients(formula, (x, weight), needed, grad_out), None, None
        if all(needed):
            return *_gradients(grad_out, x, weight, inverse), None, None
        return *_gradients_plain(grad_out, x, weight, inverse, needed), None, None


def _cast_norm(x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype | None) -> Tensor:
    return reference.rms_norm(x, weight, eps).to(x.dtype if dtype is None else dtype)


def _normalise(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Return the normalised state, and one over every token's root mean square."""
    inverse = x.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    normal = x * inverse
    return normal if weight is None else normal.mul_(weight), inverse


def _normalise_for_matmul_plain(
    x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    square = torch.mul(x, x, out=scratch_buffer("normal", x.shape, x.dtype))
    inverse = square.mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    return _scale(x, weight, inverse, dtype, torch.empty_like(x, dtype=dtype)), inverse


def _normalise_for_matmul_formula(
    x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    inverse = (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    return _scale_formula(x, weight, inverse, dtype), inverse


def _scale(x: Tensor, weight: Tensor | None, inverse: Tensor, dtype: torch.dtype, out: Tensor) -> Tensor:
    wide_out = out if dtype == x.dtype else scratch_buffer("normal", x.shape, x.dtype)
    torch.mul(x, inverse, out=wide_out)
    if weight is not None:
        wide_out.mul_(weight)
    return out if wide_out is out else out.copy_(wide_out)


def _scale_formula(x: Tensor, weight: Tensor | None, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    normal = x * inverse
    return (normal if weight is None else normal * weight).to(dtype)


def _transposed_scaled_plain(x: Tensor, weight: Tensor | None, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    return _scale(x, weight, inverse, dtype, scratch_buffer("normal", x.shape, dtype)).T.contiguous()


def _transposed_scaled_formula(
    x: Tensor, weight: Tensor | None, inverse: Tensor, dtype: torch.dtype
) -> Tensor:
    return _scale_formula(x, weight, inverse, dtype).T.contiguous()


def _gradients_plain(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor | None,
    inverse: Tensor,
    needed: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    grad_out, normal = grad_out.to(x.dtype), x * inverse
    grad_x = grad_weight = None
    if weight is not None:
        if needed[1]:
            grad_weight = (grad_out * normal).flatten(0, -2).sum(dim=0)
        grad_out = grad_out * weight
    if needed[0]:
        along = (grad_out * normal).mean(dim=-1, keepdim=True)
        grad_x = torch.addcmul(grad_out, normal, along, value=-1).mul_(inverse)
    return grad_x, grad_weight


def _gradients_formula(grad_out: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    grad_out, normal = grad_out.to(x.dtype), x * inverse
    grad_weight = (grad_out * normal).flatten(0, -2).sum(dim=0)
    grad_out = grad_out * weight
    along = (grad_out * normal).mean(dim=-1, keepdim=True)
    return (grad_out - normal * along) * inverse, grad_weight


_normalise_for_matmul = Fusable(_normalise_for_matmul_plain, _normalise_for_matmul_formula)
_transposed_scaled = Fusable(_transposed_scaled_plain, _transposed_scaled_formula)
_gradients = Fusable(_gradients_plain, _gradients_formula)
