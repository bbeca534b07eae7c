"""Attention's weights with dropout where a CPU's chains of passes are compiled: scores to dropped weights in one loop.

A mask is made where it is used, from each weight's place and a seed, so nothing is drawn or read; the backward pass
makes the same one. The hash is Wellons' `lowbias32` (https://nullprogram.com/blog/2018/07/31/), of which 16 bits count.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.kernels import Kernel
from loopscope.model.dropout import LEVELS
from loopscope.recurrence import wide

PARTS = 4
"""Rows of a causal square go in so many parts, each up to the last column that it sees: 5/8 of the square."""


def place_of(head: int, row: int, seq: int) -> Int[Tensor, "3"]:
    """Where a part's first weight lies among all, and how far it is to the next row and head; modulo 2^32."""
    steps = ((head * seq + row) * seq, seq, seq * seq)
    return torch.tensor([_signed(step) for step in steps], dtype=torch.int32)


def short_seed(seed: int) -> Int[Tensor, ""]:
    """A seed of 32 bits."""
    return torch.tensor(_signed(seed ^ (seed >> 32)), dtype=torch.int32)


def _signed(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def kept(shape: tuple[int, ...], place: Int[Tensor, "3"], seed: Int[Tensor, ""], dropout: float) -> Tensor:
    """True where a weight stays, [heads rows columns]."""
    heads, rows, columns = (torch.arange(size, dtype=torch.int32) for size in shape)
    number = columns + rows[:, None] * place[1] + heads[:, None, None] * place[2] + place[0]
    number = number ^ seed
    number = (number ^ ((number >> 16) & 0xFFFF)) * 0x7FEB352D
    number = (number ^ ((number >> 15) & 0x1FFFF)) * _signed(0x846CA68B)
    return ((number ^ ((number >> 16) & 0xFFFF)) & 0xFFFF) >= round(dropout * LEVELS)


def _weigh_(
    scores: Float[Tensor, "heads rows columns"], hidden: Tensor, place: Tensor, seed: Tensor, dropout: float
) -> None:
    """Scores become weights, those that are dropped 0. `hidden` is added to them first."""
    weights = torch.softmax(wide(scores) + hidden, dim=-1)
    scores.copy_(torch.where(kept(scores.shape, place, seed, dropout), weights, 0.0).to(scores.dtype))


def _weigh_back_(
    scores: Float[Tensor, "heads rows columns"],
    slopes: Float[Tensor, "heads rows columns"],
    hidden: Tensor,
    place: Tensor,
    seed: Tensor,
    dropout: float,
) -> None:
    """The same; and slopes by dropped weights become slopes by scores."""
    weights = torch.softmax(wide(scores) + hidden, dim=-1)
    stays = kept(scores.shape, place, seed, dropout)
    slope = torch.where(stays, wide(slopes), 0.0)
    along = (slope * weights).sum(dim=-1, keepdim=True)
    scores.copy_(torch.where(stays, weights, 0.0).to(scores.dtype))
    slopes.copy_((weights * (slope - along)).to(slopes.dtype))


weigh_ = Kernel(_weigh_, _weigh_)
weigh_back_ = Kernel(_weigh_back_, _weigh_back_)
