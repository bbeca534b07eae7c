"""Cross-entropy summed over the exits of one unroll, with the gradient taken while the logits are there.

A mean over tokens weighs every token alike, and a placement's share of each exit is known before it is read. So a
chunk of logits gives its loss and both gradients at once, and is gone: no product is done twice, and the backward pass
only scales what is kept. The shares need no waiting for later exits, so one gradient of the head's matrix serves all.

Memory: one chunk of logits (two where chains are compiled), one head gradient in fp32 (and a chunk's share of it, where
products are narrower), and per exit one gradient of its features.
The slow reference, which this equals to rounding, is `token_loss.plain_cross_entropy`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import product_type, wide
from loopscope.objectives import token_loss
from loopscope.objectives.token_loss import IGNORE_INDEX, plain_cross_entropy
from loopscope.ops.fusion import Kernel, fuses
from loopscope.ops.matmul import add_, product, turned

LOWEST = -60.0
"""Logits further below the largest are raised to this: e^-60 is nothing beside 1 in fp32, and no number on the way
is denormal (denormal products make a CPU's matrix product ten times slower)."""

ROWS = 16
"""Rows as long as the vocabulary that a CPU works on in fp32 at a time, so that they are still in the cache."""


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
        self.computed = matrix.detach().to(product_type(matrix))
        # As wide as the value: every chunk's share is added in full. [dim vocab], because a product of chunks' columns
        # is twice as fast along the longer side: 3.2 ms against 5.8 for 419 tokens of 20,000 in bf16 on two cores.
        shape = matrix.shape[::-1]
        self.gradient = wide(matrix[:0].detach()).new_zeros(shape) if matrix.requires_grad else None
        self.total: Tensor | None = None
        elements = token_loss.CHUNK_ELEMENTS * (ON_CUDA if matrix.device.type == "cuda" else 1)
        most = max(1, elements // len(matrix))
        size = -(-len(self.mask) // -(-len(self.mask) // most))  # of equal chunks
        self.logits = self.computed.new_empty(size, len(matrix))
        self.slopes: Tensor | None = None  # beside them, where chains are compiled
        narrower = wide(self.logits[:0]).dtype != self.logits.dtype
        gathers = narrower and self.gradient is not None
        # Not touched, and so no memory, where the logits' own room serves.
        self.share = self.computed.new_empty(shape) if gathers else None
        rows = size if matrix.device.type == "cuda" else min(size, ROWS)
        self.wider, self.slope = (wide(self.logits[:0]).new_empty(rows, len(matrix)) for _ in range(2))

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
            logits = product(own, self.computed.T, out=self.logits[: len(own)])
            losses[part], slope = self._slopes(logits, self.targets[part])
            if gradient is not None:
                product(slope, self.computed, out=gradient[part])
            if self.gradient is not None:
                self._gather(own * self.mask[part], slope, share)
        if gradient is not None:
            gradient *= self.mask
        return losses * self.mask.squeeze(1), gradient

    def _slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of tokens, and their slopes by the logits, which may be where those were."""
        if fuses() and logits.device.type == "cpu":
            if self.slopes is None:
                self.slopes = torch.empty_like(self.logits)
            return _at_once(logits, targets, self.slopes[: len(logits)])
        return _slopes_(logits, targets, self.wider, self.slope), logits

    def _gather(self, rows: Float[Tensor, "tokens dim"], slope: Tensor, share: float) -> None:
        """gradient += share × rowsᵀ · slope, added in the gradient's own width."""
        assert self.gradient is not None
        rows = turned(rows)
        if self.share is None:
            torch.addmm(self.gradient, rows, slope, alpha=share, out=self.gradient)
            return
        out = self.share
        if slope.data_ptr() != self.logits.data_ptr() and self.logits.numel() >= out.numel():
            out = self.logits.view(-1)[: out.numel()].view(out.shape)  # whose logits nobody needs any more
        product(rows, slope, out=out)
        add_(self.gradient, out, share)


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
            by_matrix = torch.mul(gathered.T, scale, out=gathered.new_empty(matrix.shape)).to(matrix.dtype)
        return upstream[0], by_features, by_matrix, None, None, None


def _slopes_(logits: Tensor, targets: Tensor, wider: Tensor, slope: Tensor) -> Tensor:
    """Losses of tokens; their logits become the losses' slope by them. A few rows at a time, which fit `wider`."""
    losses = slope.new_empty(len(logits))
    few = len(wider)
    for start in range(0, len(logits), few):
        part = slice(start, start + few)
        losses[part] = _slopes_of_few_(logits[part], targets[part], wider, slope)
    return losses


def _slopes_of_few_(logits: Tensor, targets: Tensor, wider: Tensor, slope: Tensor) -> Tensor:
    wider, slope = wider[: len(logits)].copy_(logits), slope[: len(logits)]
    own = wider.gather(1, targets)
    lowest = wider.amax(dim=1, keepdim=True) + LOWEST
    torch.maximum(wider, lowest, out=wider)
    torch.softmax(wider, dim=1, out=slope)
    # log-sum-exp without another exponential: softmax(x) = exp(x - log-sum-exp), and none is below e^-60.
    losses = torch.maximum(own, lowest) - slope.gather(1, targets).log() - own
    slope.scatter_add_(1, targets, slope.new_full((1, 1), -1).expand_as(targets))
    logits.copy_(slope)
    return losses.squeeze(1)


def _at_once(logits: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Losses, and in `shares` their slopes by the logits: only what is written elsewhere becomes one loop."""
    highest, total = _shares_(logits, shares)
    own = wide(logits.gather(1, targets)) - highest
    rows = torch.arange(len(targets))
    shares[rows, targets.squeeze(1)] = (own.exp() / total - 1).to(shares.dtype).squeeze(1)
    return (total.log() - own).squeeze(1), shares


def _shares_formula_(logits: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of every token, and the sum of powers beside it; their shares go to `shares`."""
    values = wide(logits)
    highest = values.amax(dim=1, keepdim=True)
    power = torch.exp(torch.maximum(values - highest, values.new_full((), LOWEST)))
    total = power.sum(dim=1, keepdim=True)
    shares.copy_((power * (1 / total)).to(logits.dtype))
    return highest, total


_shares_ = Kernel(_shares_formula_, _shares_formula_)


def _differentiable(
    ctx: Any, upstream: Tensor, features: Tensor, matrix: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The same gradients by the slow reference, recorded."""
    needed = ctx.needs_input_grad[1:3]
    # Aliases: a tied head is also in the history of the features.
    features, matrix = features.view_as(features), matrix.view_as(matrix)
    wanted = [part for part, is_needed in zip((features, matrix), needed, strict=True) if is_needed]
    with torch.autocast(features.device.type, enabled=False):
        losses = plain_cross_entropy(lambda rows: F.linear(rows, matrix.to(rows.dtype)), features, ctx.labels)
        value = ctx.share * losses.sum() / ctx.count
        found = iter(torch.autograd.grad(value, wanted, upstream, create_graph=True))
    by_features, by_matrix = (next(found) if is_needed else None for is_needed in needed)
    return by_features, by_matrix
