"""Cross-entropy summed over the exits of one unroll, with the gradient taken while the logits are there.

A mean over tokens weighs every token alike, and a placement's share of each exit is known before it is read. So a
chunk of logits gives its loss and both gradients at once, and is gone: no product is done twice, and the backward pass
only scales what is kept. The shares need no waiting for later exits, so one gradient of the head's matrix serves all.

Memory: one chunk of logits (two where chains are compiled), one head gradient in fp32 (and a chunk's share of it, where
products are narrower), and per exit one gradient of its features.
The plain formula, which this equals to rounding, is `ops.reference.linear_cross_entropy`.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import LOWEST_POWER, matmul_dtype, wide
from loopscope.objectives import token_loss
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.ops import reference
from loopscope.ops.cpu_sizes import cpu_sizes
from loopscope.ops.fusion import Fusable, fused
from loopscope.ops.matmul import transposed

_ROWS = 16
"""Rows as long as the vocabulary that a CPU works on in fp32 at a time, so that they are still in the cache."""


ON_CUDA = 8
"""Chunks are so many times larger there, for fewer and fuller kernels: 670 MB with all that belongs to one."""


class LinearCrossEntropy:
    """The sum over exits of share × mean cross-entropy, and its gradients, as the exits come.

    Args:
        matrix: the head, logits = features @ matrix.T. Its gradient is gathered_gradient if it wants one.
        labels: -100 is not counted.
    """

    def __init__(self, matrix: Float[Tensor, "vocab dim"], labels: Int[Tensor, "batch seq"]) -> None:
        self.matrix = matrix
        self.labels = labels
        counted = labels.flatten() != IGNORE_INDEX
        self.targets = labels.flatten().where(counted, 0)[:, None]
        self.mask = counted[:, None]
        self.count = counted.sum()
        self.computed = matrix.detach().to(matmul_dtype(matrix))
        # As wide as the value: every chunk's share is added in full. [dim vocab], because a product of chunks' columns
        # is twice as fast along the longer side: 3.2 ms against 5.8 for 419 tokens of 20,000 in bf16 on two cores.
        shape = matrix.shape[::-1]
        self.gradient = wide(matrix[:0].detach()).new_zeros(shape) if matrix.requires_grad else None
        self.total: Tensor | None = None
        on_cpu = cpu_sizes().logits or token_loss.CHUNK_ELEMENTS
        elements = token_loss.CHUNK_ELEMENTS * ON_CUDA if matrix.device.type == "cuda" else on_cpu
        most = max(1, elements // len(matrix))
        size = -(-len(self.mask) // -(-len(self.mask) // most))  # of equal chunks
        self.logits = self.computed.new_empty(size, len(matrix))
        self.logit_gradients: Tensor | None = None  # beside them, where chains are compiled
        narrower = wide(self.logits[:0]).dtype != self.logits.dtype
        gathers = narrower and self.gradient is not None
        # Not touched, and so no memory, where the logits' own room serves.
        self.share = self.computed.new_empty(shape) if gathers else None
        rows = size if matrix.device.type == "cuda" else min(size, _ROWS)
        self.wider, self.logit_grad = (wide(self.logits[:0]).new_empty(rows, len(matrix)) for _ in range(2))

    def add(self, features: Float[Tensor, "batch seq dim"], share: float) -> Float[Tensor, "batch seq"]:
        """Add an exit; return its cross-entropy per token in nats, without gradient, 0 where not counted."""
        first = self.total is None
        before = self.logit_grad.new_zeros(()) if self.total is None else self.total
        self.total, losses = _AddExit.apply(before, features, self.matrix, self, share, first)
        return losses.view(features.shape[:2])

    def finish(self) -> Float[Tensor, ""]:
        """Return the sum. The graph keeps what the backward pass needs; nothing here refers to it any more."""
        assert self.total is not None, "a placement reads at least one loop"
        total, self.total = self.total, None
        return total

    def read(
        self, features: Float[Tensor, "tokens dim"], share: float, wanted: bool
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens dim"] | None]:
        """Return losses, and (if wanted) the gradient of their sum by the features; gathers the matrix's own."""
        rows = features.to(self.computed.dtype)
        losses = self.logit_grad.new_empty(len(rows))
        gradient = torch.empty_like(rows) if wanted else None
        size = len(self.logits)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            own = rows[part]
            logits = torch.mm(own, self.computed.T, out=self.logits[: len(own)])
            losses[part], logit_grad = self._logit_gradients(logits, self.targets[part])
            if gradient is not None:
                torch.mm(logit_grad, self.computed, out=gradient[part])
            if self.gradient is not None:
                self._gather(own * self.mask[part], logit_grad, share)
        if gradient is not None:
            gradient *= self.mask
        return losses * self.mask.squeeze(1), gradient

    def _logit_gradients(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses of tokens, and their gradients by the logits, which may be where those were."""
        if fused() and logits.device.type == "cpu":
            if self.logit_gradients is None:
                self.logit_gradients = torch.empty_like(self.logits)
            return _fused_logit_gradients(logits, targets, self.logit_gradients[: len(logits)])
        return _logit_gradients_(logits, targets, self.wider, self.logit_grad), logits

    def _gather(self, rows: Float[Tensor, "tokens dim"], logit_grad: Tensor, share: float) -> None:
        """Add share × rowsᵀ · logit_grad to the matrix's gradient, in that one's own dtype."""
        assert self.gradient is not None
        rows = transposed(rows)
        if self.share is None:
            torch.addmm(self.gradient, rows, logit_grad, alpha=share, out=self.gradient)
            return
        out = self.share
        if logit_grad.data_ptr() != self.logits.data_ptr() and self.logits.numel() >= out.numel():
            out = self.logits.view(-1)[: out.numel()].view(out.shape)  # whose logits nobody needs any more
        torch.mm(rows, logit_grad, out=out)
        self.gradient.add_(out, alpha=share)


class _AddExit(torch.autograd.Function):
    """total + share × mean cross-entropy. The matrix's gradient leaves with the first exit, whose turn comes last."""

    @staticmethod
    def forward(
        ctx: Any,
        total: Tensor,
        features: Tensor,
        matrix: Tensor,
        run: LinearCrossEntropy,
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
    def backward(ctx: Any, *grad_out: Tensor) -> tuple[Tensor | None, ...]:
        features, matrix = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: the gradient needs a graph of its own
            return grad_out[0], *_differentiable(ctx, grad_out[0], features, matrix), None, None, None
        gradient, gathered_gradient = ctx.kept
        scale = grad_out[0] / ctx.count
        grad_features = grad_matrix = None
        if gradient is not None:
            grad_features = (gradient * (ctx.share * scale)).view_as(features).to(features.dtype)
        if gathered_gradient is not None:
            grad_matrix = gathered_gradient.new_empty(matrix.shape)
            grad_matrix = torch.mul(gathered_gradient.T, scale, out=grad_matrix).to(matrix.dtype)
        return grad_out[0], grad_features, grad_matrix, None, None, None


def _logit_gradients_(logits: Tensor, targets: Tensor, wider: Tensor, logit_grad: Tensor) -> Tensor:
    """Return losses of tokens; their logits become gradients by them. A few rows at a time, which fit `wider`."""
    losses = logit_grad.new_empty(len(logits))
    few = len(wider)
    for start in range(0, len(logits), few):
        part = slice(start, start + few)
        losses[part] = _logit_gradients_of_few_(logits[part], targets[part], wider, logit_grad)
    return losses


def _logit_gradients_of_few_(logits: Tensor, targets: Tensor, wider: Tensor, logit_grad: Tensor) -> Tensor:
    wider, logit_grad = wider[: len(logits)].copy_(logits), logit_grad[: len(logits)]
    own = wider.gather(1, targets)
    lowest = wider.amax(dim=1, keepdim=True) + LOWEST_POWER
    torch.maximum(wider, lowest, out=wider)
    torch.softmax(wider, dim=1, out=logit_grad)
    # log-sum-exp without another exponential: softmax(x) = exp(x - log-sum-exp), and none is below e^-60.
    losses = torch.maximum(own, lowest) - logit_grad.gather(1, targets).log() - own
    logit_grad.scatter_add_(1, targets, logit_grad.new_full((1, 1), -1).expand_as(targets))
    logits.copy_(logit_grad)
    return losses.squeeze(1)


def _fused_logit_gradients(logits: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses, and in `shares` gradients by the logits: only what is written elsewhere becomes one loop."""
    highest, total = _shares_(logits, shares)
    own = wide(logits.gather(1, targets)) - highest
    rows = torch.arange(len(targets))
    shares[rows, targets.squeeze(1)] = (own.exp() / total - 1).to(shares.dtype).squeeze(1)
    return (total.log() - own).squeeze(1), shares


def _shares_formula_(logits: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest logit of every token, and the sum of powers beside it; their shares go to `shares`."""
    values = wide(logits)
    highest = values.amax(dim=1, keepdim=True)
    power = torch.exp(torch.maximum(values - highest, values.new_full((), LOWEST_POWER)))
    total = power.sum(dim=1, keepdim=True)
    shares.copy_((power * (1 / total)).to(logits.dtype))
    return highest, total


_shares_ = Fusable(_shares_formula_, _shares_formula_)


def _differentiable(
    ctx: Any, grad_out: Tensor, features: Tensor, matrix: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients by the plain formula, recorded: for second derivatives."""

    def value(features: Tensor, matrix: Tensor) -> Tensor:
        losses = reference.linear_cross_entropy(features, matrix, ctx.labels)
        return ctx.share * losses.sum() / ctx.count

    needed = ctx.needs_input_grad[1:3]
    with torch.autocast(features.device.type, enabled=False):
        grad_features, grad_matrix = reference.recorded_gradients(value, (features, matrix), needed, grad_out)
    return grad_features, grad_matrix
