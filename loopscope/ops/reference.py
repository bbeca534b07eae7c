"""The plain formula of every operation: what tests hold it to, what second derivatives use, what runs where it is off.

Written as one would first write them, with PyTorch's own operations; nothing here is kept from one call to the next.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.numerics import wide


def rms_norm(
    x: Float[Tensor, "*batch dim"], weight: Float[Tensor, " dim"] | None, eps: float | None
) -> Float[Tensor, "*batch dim"]:
    """Return x / sqrt(mean(x²) + eps) · weight, over the last axis."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def linear(x: Float[Tensor, "*batch dim"], matrix: Float[Tensor, "out dim"]) -> Float[Tensor, "*batch out"]:
    """Return x · matrixᵀ, in x's dtype."""
    return F.linear(x, matrix.to(x.dtype))


def swiglu(
    x: Float[Tensor, "*batch dim"],
    gate: Float[Tensor, "width dim"],
    up: Float[Tensor, "width dim"],
    down: Float[Tensor, "dim width"],
) -> Float[Tensor, "*batch dim"]:
    """Return down(silu(gate x) · up x), in x's dtype."""
    return linear(F.silu(linear(x, gate)) * linear(x, up), down)


def attention(
    query: Float[Tensor, "*batch rows head_dim"],
    key: Float[Tensor, "*batch columns head_dim"],
    value: Float[Tensor, "*batch columns value_dim"],
    mask: Bool[Tensor, "#rows columns"] | None = None,
    factors: Float[Tensor, "*batch rows columns"] | None = None,
) -> Float[Tensor, "*batch rows value_dim"]:
    """Return softmax(query keyᵀ / √head_dim) value.

    Args:
        mask: True where a row sees a column; None: itself and all before it.
        factors: what dropout multiplies weights by: 0 where one is dropped, 1 / (1 - dropout) elsewhere.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return (weights if factors is None else weights * factors) @ value


def dropout_add(
    hidden: Float[Tensor, "*shape"], added: Float[Tensor, "*shape"], factors: Float[Tensor, "*shape"] | None
) -> Float[Tensor, "*shape"]:
    """Return hidden + factors · added, in hidden's dtype; `factors` as in `attention`."""
    added = added.to(hidden.dtype)
    return hidden + (added if factors is None else factors * added)


def linear_cross_entropy(
    features: Float[Tensor, "batch seq dim"],
    matrix: Float[Tensor, "vocab dim"],
    labels: Int[Tensor, "batch seq"],
) -> Float[Tensor, "batch seq"]:
    """Return the cross-entropy of every token in nats, in fp32 or wider; 0 where the label is -100."""
    logits = wide(linear(features.flatten(0, 1), matrix))
    return F.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="none").view_as(labels)


def recorded_gradients(
    formula: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grad_out: Tensor,
) -> Iterator[Tensor | None]:
    """Return the gradients of a formula by autograd, with a graph of their own: for second derivatives.

    Args:
        formula: what an operation computes of its inputs.
        needed: which of them want a gradient (one more than there are inputs does no harm).
        grad_out: the gradient by what the formula returns.
    """
    # Aliases: weights are also in the history of a state, wherever layers or loops share them.
    aliases = [None if one is None else one.view_as(one) for one in inputs]
    pairs = list(zip(aliases, needed, strict=False))
    wanted = [one for one, is_needed in pairs if is_needed and one is not None]
    gradients = iter(torch.autograd.grad(formula(*aliases), wanted, grad_out, create_graph=True))
    return (next(gradients) if is_needed else None for _, is_needed in pairs)
