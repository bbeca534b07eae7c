"""What stands between the scores of attention and its weights, on a CPU, with dropout: softmax and mask, both ways.

by passes
    As PyTorch's own operations go, a few rows at a time; masks are drawn.
by place
    One loop over memory for all of it, where chains are compiled (`kernels`).

The backward pass makes the same masks, each in its way (`model.masks`).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import wide
from loopscope.ops.dropout_masks import Masks, gain, keep_, kept, place_of, short_seed
from loopscope.ops.fusion import Kernel

ROWS = 64
"""Rows of a causal square that are worked on at a time, up to the last column that they see: half is never touched."""

PARTS = 4
"""Rows of a causal square go in so many parts, each up to the last column that it sees: 5/8 of the square."""


def _weigh_(
    scores: Float[Tensor, "heads rows columns"],
    hidden: Tensor,
    place: Tensor,
    seed: Tensor,
    dropout: float,
    scale: float,
) -> None:
    """softmax(scale · scores + hidden), with dropout, in the scores' place."""
    weights = torch.softmax(wide(scores) * scale + hidden, dim=-1)
    stays = kept(scores.shape, place, seed, dropout)
    scores.copy_(torch.where(stays, weights * gain(dropout), 0.0).to(scores.dtype))


def _weigh_back_(
    scores: Float[Tensor, "heads rows columns"],
    slopes: Float[Tensor, "heads rows columns"],
    hidden: Tensor,
    place: Tensor,
    seed: Tensor,
    dropout: float,
    scale: float,
) -> None:
    """The same; and slopes by dropped weights become slopes by scores."""
    weights = torch.softmax(wide(scores) * scale + hidden, dim=-1)
    stays = kept(scores.shape, place, seed, dropout)
    slope = torch.where(stays, wide(slopes) * gain(dropout), 0.0)
    along = (slope * weights).sum(dim=-1, keepdim=True)
    scores.copy_(torch.where(stays, weights * gain(dropout), 0.0).to(scores.dtype))
    slopes.copy_((weights * (slope - along) * scale).to(slopes.dtype))


weigh_ = Kernel(_weigh_, _weigh_)
weigh_back_ = Kernel(_weigh_back_, _weigh_back_)


Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Queries, keys and values of heads, and the gradient of what their weights mix."""


class ByPasses:
    """Weights of heads, in order from the first, by PyTorch's operations.

    Args:
        hidden: added to scores: 0, or -inf where a row does not see a column.
        causal: rows see themselves and those before.
        scale: of scores.

    Attributes:
        before: what queries are to be multiplied by before they come here.
        after: what is mixed by these weights is to be multiplied by, and gradients that come from them.
    """

    def __init__(
        self, hidden: Float[Tensor, "seq seq"], dropout: float, causal: bool, seed: int, scale: float
    ) -> None:
        self.hidden, self.causal = hidden, causal
        self.before, self.after = scale, gain(dropout)
        self.masks = Masks(dropout, seed)
        self.parts = list(parts(len(hidden), ROWS if causal else len(hidden)))

    @staticmethod
    def ready(squares: Tensor) -> Tensor:
        """Squares as `forward` and `backward` want them: what they never write is 0."""
        return squares.zero_()

    def forward(self, query: Tensor, key: Tensor, dropped: Float[Tensor, "heads seq seq"], head: int) -> None:
        """Dropped weights; what no row sees of `dropped` stays as it is, which is 0."""
        for rows, seen in self.parts:
            weights = self._weights(query, key, rows, seen)
            dropped[:, rows, seen] = keep_(weights, self.masks.draw(weights))

    def backward(
        self,
        inputs: Inputs,
        dropped: Float[Tensor, "heads seq seq"],
        slope: Float[Tensor, "heads seq seq"],
        head: int,
    ) -> None:
        """The same again, and the slope by scores."""
        query, key, value, above = inputs
        for rows, seen in self.parts:
            weights = self._weights(query, key, rows, seen)
            mask = self.masks.draw(weights)
            by_weights = torch.bmm(above[:, rows], value[:, seen].transpose(1, 2))
            slope[:, rows, seen] = torch._softmax_backward_data(
                keep_(by_weights, mask), weights, -1, weights.dtype
            )
            dropped[:, rows, seen] = keep_(weights, mask)

    def _weights(self, query: Tensor, key: Tensor, rows: slice, seen: slice) -> Tensor:
        scores = torch.bmm(query[:, rows], key[:, seen].transpose(1, 2))
        ragged = rows if self.causal else seen  # columns that not all rows see
        scores[:, :, ragged].add_(self.hidden[rows, ragged])
        return torch.softmax(scores, dim=-1)


class ByPlace:
    """The same by whole products and one loop over each part. Any heads, in any order."""

    before = after = 1.0

    def __init__(
        self, hidden: Float[Tensor, "seq seq"], dropout: float, causal: bool, seed: int, scale: float
    ) -> None:
        self.hidden, self.dropout, self.seed, self.scale = hidden, dropout, short_seed(seed), scale
        seq = len(hidden)
        self.parts = list(parts(seq, -(-seq // PARTS) if causal else seq))

    @staticmethod
    def ready(squares: Tensor) -> Tensor:
        """Squares as they come: all of them is written."""
        return squares

    def forward(self, query: Tensor, key: Tensor, dropped: Float[Tensor, "heads seq seq"], head: int) -> None:
        """Dropped weights."""
        torch.bmm(query, key.transpose(1, 2), out=dropped)
        for rows, seen in self.parts:
            place = place_of(head, rows.start, len(self.hidden))
            weigh_(
                dropped[:, rows, seen], self.hidden[rows, seen], place, self.seed, self.dropout, self.scale
            )
            dropped[:, rows, seen.stop :].zero_()

    def backward(
        self,
        inputs: Inputs,
        dropped: Float[Tensor, "heads seq seq"],
        slope: Float[Tensor, "heads seq seq"],
        head: int,
    ) -> None:
        """The same again, and the slope by scores."""
        query, key, value, above = inputs
        torch.bmm(query, key.transpose(1, 2), out=dropped)
        torch.bmm(above, value.transpose(1, 2), out=slope)
        for rows, seen in self.parts:
            place = place_of(head, rows.start, len(self.hidden))
            both = dropped[:, rows, seen], slope[:, rows, seen]
            weigh_back_(*both, self.hidden[rows, seen], place, self.seed, self.dropout, self.scale)
            for square in (dropped, slope):
                square[:, rows, seen.stop :].zero_()


def parts(seq: int, step: int) -> Iterator[tuple[slice, slice]]:
    """A causal square's rows, so many at a time, and the columns that they see."""
    for start in range(0, seq, step):
        stop = min(start + step, seq)
        yield slice(start, stop), slice(0, stop)
