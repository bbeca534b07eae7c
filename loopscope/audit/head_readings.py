"""What a head says of features, asked once: cross-entropy per token, and its gradient by the features.

One audit asks the same exits again and again: for what a term sees of its own state and through the unroll, for a
readout by itself, for the losses of its exits, under a penalty. The head is the dear part of all of them. Here its
gradient is taken while a chunk of logits is there, and kept: going back through an exit is then one multiplication.
Features that differ by rounding alone count as the same (a normed readout of a state thirty times as large).

Memory: two tensors as large as a state for every exit that a gradient was asked of, and one chunk of logits.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from loopscope.audit.sameness import same_to_rounding
from loopscope.numerics import wide
from loopscope.objectives.linear_cross_entropy import LinearCrossEntropy
from loopscope.objectives.token_loss import CHUNK_ELEMENTS, IGNORE_INDEX, Head, chunked_cross_entropy
from loopscope.ops.dispatch import cpu_ops_apply
from loopscope.recurrence import AbstractLoopedLM


@dataclass(frozen=True)
class _Reading:
    """One exit: features [batch seq dim], losses [batch seq], the gradient of each token's loss by its features."""

    features: Tensor
    labels: Tensor
    losses: Tensor
    gradient: Tensor


class HeadReadings:
    """Cross-entropy per token of a model's exits: `readings(head, features, labels)`, computed once for the same ones.

    In place of `token_loss.chunked_cross_entropy` as long as an audit takes; equal to it in value and gradient. It has
    no second derivative.

    Args:
        model: whose head it is.
    """

    def __init__(self, model: AbstractLoopedLM) -> None:
        self.model = model
        self._kept: list[_Reading] = []

    def __call__(
        self, head: Head, features: Float[Tensor, "batch seq dim"], labels: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq"]:
        """Return the cross-entropy of every token in nats; 0 where the label is ignored."""
        recorded = torch.is_grad_enabled() and features.requires_grad
        if not recorded:
            return self.value(head, features, labels)
        known = self._known(features.detach(), labels) or self._read(head, features.detach(), labels)
        losses: Tensor = _Known.apply(features, known.losses, known.gradient)  # type: ignore[no-untyped-call]
        return losses

    @torch.no_grad()
    def value(
        self, head: Head, features: Float[Tensor, "batch seq dim"], labels: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq"]:
        """Return the same without gradient. What was not read yet is not kept."""
        known = self._known(features, labels)
        return chunked_cross_entropy(head, features, labels) if known is None else known.losses

    def _known(self, features: Tensor, labels: Tensor) -> _Reading | None:
        return next(
            (one for one in self._kept if one.labels is labels and same_to_rounding(features, one.features)),
            None,
        )

    def _read(self, head: Head, features: Tensor, labels: Tensor) -> _Reading:
        matrix = self.model.head_matrix()
        if matrix is not None and cpu_ops_apply("linear_cross_entropy", matrix):
            losses, gradient = LinearCrossEntropy(matrix.detach(), labels).read(
                features.flatten(0, 1), 1.0, True
            )
            assert gradient is not None
        else:
            losses, gradient = _of_chunks(head, features.flatten(0, 1), labels.flatten())
        reading = _Reading(features, labels, losses.view_as(labels), gradient.view_as(features))
        self._kept.append(reading)
        return reading


class _Known(torch.autograd.Function):
    """Losses that were read already, as a function of the features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return losses.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_out[..., None].to(gradient.dtype) * gradient, None, None


def _of_chunks(
    head: Head, features: Float[Tensor, "tokens dim"], labels: Int[Tensor, " tokens"]
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens dim"]]:
    """Losses and their gradients by any head's features, a chunk of logits at a time."""
    with torch.no_grad():
        vocabulary = head(features[:1]).shape[-1]
    tokens = max(1, CHUNK_ELEMENTS // vocabulary)
    losses, gradients = [], []
    for own, targets in zip(features.split(tokens), labels.split(tokens), strict=True):
        with torch.enable_grad():
            own = own.detach().requires_grad_()
            loss = F.cross_entropy(wide(head(own)), targets, ignore_index=IGNORE_INDEX, reduction="none")
            losses.append(loss.detach())
            # Lifted on its way back, exactly: probabilities next to 0 are denormal numbers, which CPUs multiply slowly.
            (gradient,) = torch.autograd.grad(loss.sum() * LIFT, own)
            gradients.append(gradient / LIFT)
    return torch.cat(losses), torch.cat(gradients)


LIFT = 2.0**40
"""What losses are multiplied by on their way back. A check at laptop size from the published start: 4 times faster."""
