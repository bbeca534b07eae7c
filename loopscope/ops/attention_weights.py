"""What stands between the scores of attention and its weights, on a CPU, with dropout: softmax and mask, both ways.

plain
    As PyTorch's own operations go, a few rows at a time; masks are drawn.
fused
    One loop over memory for all of it, where chains are compiled (`ops.fusion`); masks come from places.

The backward pass makes the same masks, each in its way (`ops.dropout_masks`).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import wide
from loopscope.ops.dropout_masks import DropoutMasks, dropout_gain, keep_, kept, place_of, short_seed
from loopscope.ops.fusion import Fusable
from loopscope.ops.private_torch import softmax_backward

ROWS = 64
"""Rows of a causal square that are worked on at a time, up to the last column that they see: half is never touched."""

PARTS = 4
"""Rows of a causal square go in so many parts, each up to the last column that it sees: 5/8 of the square."""


def _weights_(
    scores: Float[Tensor, "heads rows columns"],
    bias: Tensor,
    place: Tensor,
    seed: Tensor,
    dropout: float,
    scale: float,
) -> None:
    """Put softmax(scale · scores + bias), with dropout, in the scores' place."""
    weights = torch.softmax(wide(scores) * scale + bias, dim=-1)
    stays = kept(scores.shape, place, seed, dropout)
    scores.copy_(torch.where(stays, weights * dropout_gain(dropout), 0.0).to(scores.dtype))


def _weights_backward_(
    scores: Float[Tensor, "heads rows columns"],
    grads: Float[Tensor, "heads rows columns"],
    bias: Tensor,
    place: Tensor,
    seed: Tensor,
    dropout: float,
    scale: float,
) -> None:
    """Put the dropped weights in the scores' place, and turn gradients by those into gradients by scores, in place."""
    weights = torch.softmax(wide(scores) * scale + bias, dim=-1)
    stays = kept(scores.shape, place, seed, dropout)
    grad = torch.where(stays, wide(grads) * dropout_gain(dropout), 0.0)
    along = (grad * weights).sum(dim=-1, keepdim=True)
    scores.copy_(torch.where(stays, weights * dropout_gain(dropout), 0.0).to(scores.dtype))
    grads.copy_((weights * (grad - along) * scale).to(grads.dtype))


attention_weights_ = Fusable(_weights_, _weights_)
attention_weights_backward_ = Fusable(_weights_backward_, _weights_backward_)


Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Queries, keys and values of heads, and the gradient of what their weights mix."""


class PlainWeights:
    """Weights of heads, in order from the first, by PyTorch's operations.

    Args:
        bias: added to scores: 0, or -inf where a row does not see a column.
        causal: rows see themselves and those before.
        scale: of scores.

    Attributes:
        query_factor: what queries are to be multiplied by before they come here.
        mixed_factor: what is mixed by these weights is to be multiplied by, and gradients that come from them.
    """

    def __init__(
        self, bias: Float[Tensor, "seq seq"], dropout: float, causal: bool, seed: int, scale: float
    ) -> None:
        self.bias, self.causal = bias, causal
        self.query_factor, self.mixed_factor = scale, dropout_gain(dropout)
        self.masks = DropoutMasks(dropout, seed)
        self.parts = list(parts(len(bias), ROWS if causal else len(bias)))

    @staticmethod
    def ready(squares: Tensor) -> Tensor:
        """Return squares as `forward` and `backward` want them: what they never write is 0."""
        return squares.zero_()

    def forward(self, query: Tensor, key: Tensor, dropped: Float[Tensor, "heads seq seq"], head: int) -> None:
        """Write dropped weights; what no row sees of `dropped` stays as it is, which is 0."""
        for rows, visible in self.parts:
            weights = self._weights(query, key, rows, visible)
            dropped[:, rows, visible] = keep_(weights, self.masks.draw(weights))

    def backward(
        self,
        inputs: Inputs,
        dropped: Float[Tensor, "heads seq seq"],
        grad: Float[Tensor, "heads seq seq"],
        head: int,
    ) -> None:
        """Write dropped weights again, and the gradient by scores."""
        query, key, value, grad_mixed = inputs
        for rows, visible in self.parts:
            weights = self._weights(query, key, rows, visible)
            mask = self.masks.draw(weights)
            grad_weights = torch.bmm(grad_mixed[:, rows], value[:, visible].transpose(1, 2))
            grad[:, rows, visible] = softmax_backward(keep_(grad_weights, mask), weights)
            dropped[:, rows, visible] = keep_(weights, mask)

    def _weights(self, query: Tensor, key: Tensor, rows: slice, visible: slice) -> Tensor:
        scores = torch.bmm(query[:, rows], key[:, visible].transpose(1, 2))
        ragged = rows if self.causal else visible  # columns that not all rows see
        scores[:, :, ragged].add_(self.bias[rows, ragged])
        return torch.softmax(scores, dim=-1)


class FusedWeights:
    """Weights of any heads, in any order, by whole products and one compiled loop over each part.

    Arguments and attributes are those of `PlainWeights`.
    """

    query_factor = mixed_factor = 1.0

    def __init__(
        self, bias: Float[Tensor, "seq seq"], dropout: float, causal: bool, seed: int, scale: float
    ) -> None:
        self.bias, self.dropout, self.seed, self.scale = bias, dropout, short_seed(seed), scale
        seq = len(bias)
        self.parts = list(parts(seq, -(-seq // PARTS) if causal else seq))

    @staticmethod
    def ready(squares: Tensor) -> Tensor:
        """Return squares as they come: all of them is written."""
        return squares

    def forward(self, query: Tensor, key: Tensor, dropped: Float[Tensor, "heads seq seq"], head: int) -> None:
        """Write dropped weights."""
        torch.bmm(query, key.transpose(1, 2), out=dropped)
        for rows, visible in self.parts:
            place = place_of(head, rows.start, len(self.bias))
            attention_weights_(
                dropped[:, rows, visible],
                self.bias[rows, visible],
                place,
                self.seed,
                self.dropout,
                self.scale,
            )
            dropped[:, rows, visible.stop :].zero_()

    def backward(
        self,
        inputs: Inputs,
        dropped: Float[Tensor, "heads seq seq"],
        grad: Float[Tensor, "heads seq seq"],
        head: int,
    ) -> None:
        """Write dropped weights again, and the gradient by scores."""
        query, key, value, grad_mixed = inputs
        torch.bmm(query, key.transpose(1, 2), out=dropped)
        torch.bmm(grad_mixed, value.transpose(1, 2), out=grad)
        for rows, visible in self.parts:
            place = place_of(head, rows.start, len(self.bias))
            both = dropped[:, rows, visible], grad[:, rows, visible]
            attention_weights_backward_(
                *both, self.bias[rows, visible], place, self.seed, self.dropout, self.scale
            )
            for square in (dropped, grad):
                square[:, rows, visible.stop :].zero_()


def parts(seq: int, step: int) -> Iterator[tuple[slice, slice]]:
    """Yield a causal square's rows, so many at a time, and the columns that they see."""
    for start in range(0, seq, step):
        stop = min(start + step, seq)
        yield slice(start, stop), slice(0, stop)
