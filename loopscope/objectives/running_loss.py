"""Cross-entropy summed over the exits of one unroll, with the gradient taken while the logits are there.

A mean over tokens weighs every token alike, and a placement's share of each exit is known before it is read. So a
chunk of logits gives its loss and both gradients at once, and is gone: no product is done twice, and the backward pass
only scales what is kept. The shares need no waiting for later exits, so one gradient of the head's matrix serves all.

Memory: one chunk of logits (and its softmax), one head gradient in fp32, and per exit one gradient of its features.
The slow reference, which this equals to rounding, is `token_loss.plain_cross_entropy`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.objectives import token_loss
from loopscope.objectives.token_loss import IGNORE_INDEX, plain_cross_entropy
from loopscope.recurrence import wide

LOWEST = -60.0
"""Logits further below the largest are raised to this: e^-60 is nothing beside 1 in fp32, and no number on the way
is denormal (denormal products make a CPU's matrix product ten times slower)."""

BLOCK = 1024
"""Rows of the head whose bf16 gradient is widened at a time on a CPU, so that it is still in the cache."""


ON_CUDA = 8
"""Chunks are so many times larger there, for fewer and fuller kernels: 670 MB with all that belongs to one."""


class RunningCrossEntropy:
    """The sum over exits of share × mean cross-entropy, and its gradients, as the exits come.

    Args:
        matrix: the head, logits = features @ matrix.T. Its gradient is gathered if it wants one.
        labels: -100 is not counted.
    """

    def __init__(self, matrix: Float[Tensor, "vocab dim"], labels: Int[Tensor, "batch seq"]) -> None:
        self.matrix = matrix
        self.labels = labels
        counted = labels.flatten() != IGNORE_INDEX
        self.targets = labels.flatten().where(counted, 0)[:, None]
        self.mask = counted[:, None]
        self.count = counted.sum()
        self.computed = matrix.detach().to(_compute_dtype(matrix))
        # As wide as the value: every chunk's share is added in full.
        self.gradient = torch.zeros_like(wide(matrix.detach())) if matrix.requires_grad else None
        self.total: Tensor | None = None
        elements = token_loss.CHUNK_ELEMENTS * (ON_CUDA if matrix.device.type == "cuda" else 1)
        size = min(len(self.mask), max(1, elements // len(matrix)))
        self.logits = self.computed.new_empty(size, len(matrix))
        same = wide(self.logits[:0]).dtype == self.logits.dtype
        self.wider = self.logits if same else torch.empty_like(self.logits, dtype=torch.float32)
        self.slope = torch.empty_like(self.wider)

    def add(self, features: Float[Tensor, "batch seq dim"], share: float) -> Float[Tensor, "batch seq"]:
        """Add an exit; returns its cross-entropy per token in nats, without gradient, 0 where not counted."""
        first = self.total is None
        before = self.slope.new_zeros(()) if self.total is None else self.total
        self.total, losses = _AddExit.apply(before, features, self.matrix, self, share, first)
        return losses.view(features.shape[:2])

    def finish(self) -> Float[Tensor, ""]:
        """The sum. The graph keeps what the backward pass needs; nothing here refers to it any more."""
        assert self.total is not None, "a placement reads at least one loop"
        total, self.total = self.total, None
        return total

    def read(
        self, features: Float[Tensor, "tokens dim"], share: float, wanted: bool
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens dim"] | None]:
        """Losses, and (if wanted) the gradient of their sum by the features; gathers the matrix's own."""
        rows = features.to(self.computed.dtype)
        losses = self.slope.new_empty(len(rows))
        gradient = torch.empty_like(rows) if wanted else None
        size = len(self.logits)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            own = rows[part]
            losses[part], slope = self._softmax(own, self.targets[part])
            if gradient is not None:
                torch.mm(slope, self.computed, out=gradient[part])
            if self.gradient is not None:
                _add_outer(self.gradient, slope, own * self.mask[part], share)
        if gradient is not None:
            gradient *= self.mask
        return losses * self.mask.squeeze(1), gradient

    def _softmax(
        self, rows: Float[Tensor, "tokens dim"], targets: Int[Tensor, "tokens 1"]
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens vocab"]]:
        """Losses of a chunk and their slope by the logits, in the type that products compute in."""
        logits, wider, slope = (buffer[: len(rows)] for buffer in (self.logits, self.wider, self.slope))
        torch.mm(rows, self.computed.T, out=logits)
        if wider.dtype != logits.dtype:
            wider.copy_(logits)
        own = wider.gather(1, targets)
        lowest = wider.amax(dim=1, keepdim=True) + LOWEST
        torch.maximum(wider, lowest, out=wider)
        torch.softmax(wider, dim=1, out=slope)
        # log-sum-exp without another exponential: softmax(x) = exp(x - log-sum-exp), and none is below e^-60.
        losses = torch.maximum(own, lowest) - slope.gather(1, targets).log() - own
        slope.scatter_add_(1, targets, slope.new_full((1, 1), -1).expand_as(targets))
        return losses.squeeze(1), slope if slope.dtype == logits.dtype else logits.copy_(slope)


class _AddExit(torch.autograd.Function):
    """total + share × mean cross-entropy. The matrix's gradient leaves with the first exit, whose turn comes last."""

    @staticmethod
    def forward(
        ctx: Any,
        total: Tensor,
        features: Tensor,
        matrix: Tensor,
        run: RunningCrossEntropy,
        share: float,
        first: bool,
    ) -> tuple[Tensor, Tensor]:
        losses, gradient = run.read(features.flatten(0, 1), share, ctx.needs_input_grad[1])
        ctx.save_for_backward(features, matrix)
        # Not `run`, whose total refers to this graph: a circle that only the garbage collector would find.
        ctx.kept = gradient, run.gradient if first else None
        ctx.labels, ctx.count, ctx.share = run.labels, run.count, share
        ctx.mark_non_differentiable(losses)
        return total + share * (losses.sum() / run.count), losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        features, matrix = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: the gradient needs a graph of its own
            return upstream[0], *_differentiable(ctx, upstream[0], features, matrix), None, None, None
        gradient, gathered = ctx.kept
        scale = upstream[0] / ctx.count
        by_features = by_matrix = None
        if gradient is not None:
            by_features = (gradient * (ctx.share * scale)).view_as(features).to(features.dtype)
        if gathered is not None:
            by_matrix = (gathered * scale).to(matrix.dtype)
        return upstream[0], by_features, by_matrix, None, None, None


def _add_outer(gradient: Tensor, slope: Tensor, rows: Tensor, share: float) -> None:
    """gradient += share × slopeᵀ · rows, gathered in the gradient's own width."""
    if slope.dtype == gradient.dtype:
        torch.addmm(gradient, slope.T, rows, alpha=share, out=gradient)
        return
    block = BLOCK if gradient.device.type == "cpu" else len(gradient)
    for start in range(0, len(gradient), block):
        part = slice(start, start + block)
        gradient[part].add_(wide(slope[:, part].T @ rows), alpha=share)


def _differentiable(
    ctx: Any, upstream: Tensor, features: Tensor, matrix: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The same gradients by the slow reference, recorded."""
    needed = ctx.needs_input_grad[1:3]
    wanted = [part for part, is_needed in zip((features, matrix), needed, strict=True) if is_needed]
    with torch.autocast(features.device.type, enabled=False):
        losses = plain_cross_entropy(lambda rows: F.linear(rows, matrix.to(rows.dtype)), features, ctx.labels)
        value = ctx.share * losses.sum() / ctx.count
        found = iter(torch.autograd.grad(value, wanted, upstream, create_graph=True))
    by_features, by_matrix = (next(found) if is_needed else None for is_needed in needed)
    return by_features, by_matrix


def _compute_dtype(matrix: Tensor) -> torch.dtype:
    """What a product with the matrix computes in here: autocast's type, or the matrix's own."""
    kind = matrix.device.type
    if torch.is_autocast_enabled(kind) and matrix.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return matrix.dtype
