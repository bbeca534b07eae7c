"""RMSNorm whose backward pass keeps its input and one number per token.

PyTorch's RMSNorm on a CPU is a chain of plain operations, and keeps the normalised state in fp32 beside the input: 11 %
of what a bf16 layer kept at the published size. Here it is computed again. Parameters and state are those of
`nn.RMSNorm`; inside a compiled layer and in 16 bits, so is the forward pass. The numbers are PyTorch's, bit for
bit, with and without a gradient. A matrix that follows may take the norm into its own operation (`folds`), so that the
normalised state is not kept either.
"""

from functools import partial
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.ops.dispatch import listened_to, own_operations, recorded
from loopscope.ops.fusion import Kernel
from loopscope.ops.step_scope import scratch


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x²) + eps) · weight, over the last axis."""

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        if x.dtype not in (torch.float32, torch.float64) or torch.compiler.is_compiling():
            return super().forward(x)
        eps = self.epsilon(x)
        if not torch.is_grad_enabled():  # the same, without the call's 20 µs: a sixth of a cached step
            return normalised(x, self.weight, eps)[0]
        return _RMSNorm.apply(x, self.weight, eps)

    def epsilon(self, x: Tensor) -> float:
        """What is added under the root: PyTorch's choice where none is set."""
        return torch.finfo(x.dtype).eps if self.eps is None else self.eps


def folds(norm: nn.Module, x: Float[Tensor, "*batch dim"]) -> TypeGuard[RMSNorm]:
    """Whether the operation after a norm may do its work too: a gradient is recorded on a CPU, and nobody listens."""
    here = type(norm) is RMSNorm and x.dtype in (torch.float32, torch.float64)
    return here and torch.is_grad_enabled() and own_operations(x) and not listened_to(norm)


def normalised(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The normalised state, and one over every token's root mean square."""
    inverse = x.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    out = x * inverse
    return out if weight is None else out.mul_(weight), inverse


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """PyTorch's own, which records second derivatives."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def narrow_normal(
    x: Tensor, weight: Tensor | None, eps: float, kind: torch.dtype
) -> tuple[Tensor, Float[Tensor, "*batch 1"]]:
    """`normalised` in a product's type, for an operation that does not give the state away (`kernels.scratch`)."""
    return _narrow_normal(x, weight, eps, kind)


def scaled_turned(x: Tensor, weight: Tensor | None, inverse: Tensor, kind: torch.dtype) -> Tensor:
    """The normalised state as [dim tokens]."""
    return _scaled_turned(x.flatten(0, -2), weight, inverse.flatten(0, -2), kind)


def slopes(
    above: Tensor, x: Tensor, weight: Tensor | None, inverse: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and of the weight, from the normalised state's."""
    if all(wanted) and weight is not None:
        return _slopes(above, x, weight, inverse)
    return _plain_slopes(above, x, weight, inverse, wanted)


def _plain_narrow_normal(
    x: Tensor, weight: Tensor | None, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    square = torch.mul(x, x, out=scratch("normal", x.shape, x.dtype))
    inverse = square.mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    return _plain_scaled(x, weight, inverse, kind), inverse


def _narrow_normal_formula(
    x: Tensor, weight: Tensor | None, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    inverse = (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    return _scaled_formula(x, weight, inverse, kind), inverse


def _plain_scaled(x: Tensor, weight: Tensor | None, inverse: Tensor, kind: torch.dtype) -> Tensor:
    out = torch.mul(x, inverse, out=scratch("normal", x.shape, x.dtype))
    if weight is not None:
        out.mul_(weight)
    return out if kind == x.dtype else scratch("narrow normal", x.shape, kind).copy_(out)


def _scaled_formula(x: Tensor, weight: Tensor | None, inverse: Tensor, kind: torch.dtype) -> Tensor:
    out = x * inverse
    return (out if weight is None else out * weight).to(kind)


def _plain_scaled_turned(x: Tensor, weight: Tensor | None, inverse: Tensor, kind: torch.dtype) -> Tensor:
    return _plain_scaled(x, weight, inverse, kind).T.contiguous()


def _scaled_turned_formula(x: Tensor, weight: Tensor | None, inverse: Tensor, kind: torch.dtype) -> Tensor:
    return _scaled_formula(x, weight, inverse, kind).T.contiguous()


def _plain_slopes(
    above: Tensor,
    x: Tensor,
    weight: Tensor | None,
    inverse: Tensor,
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    above, normal = above.to(x.dtype), x * inverse
    by_x = by_weight = None
    if weight is not None:
        if wanted[1]:
            by_weight = (above * normal).flatten(0, -2).sum(dim=0)
        above = above * weight
    if wanted[0]:
        along = (above * normal).mean(dim=-1, keepdim=True)
        by_x = torch.addcmul(above, normal, along, value=-1).mul_(inverse)
    return by_x, by_weight


def _slopes_formula(above: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    above, normal = above.to(x.dtype), x * inverse
    by_weight = (above * normal).flatten(0, -2).sum(dim=0)
    above = above * weight
    along = (above * normal).mean(dim=-1, keepdim=True)
    return (above - normal * along) * inverse, by_weight


_narrow_normal = Kernel(_plain_narrow_normal, _narrow_normal_formula)
_scaled_turned = Kernel(_plain_scaled_turned, _scaled_turned_formula)
_slopes = Kernel(_plain_slopes, _slopes_formula)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        out, inverse = normalised(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: by PyTorch's own formula, recorded
            formula = partial(rms_norm, eps=ctx.eps)
            return *recorded(formula, (x, weight), ctx.needs_input_grad, above), None
        return *slopes(above, x, weight, inverse, ctx.needs_input_grad[:2]), None
