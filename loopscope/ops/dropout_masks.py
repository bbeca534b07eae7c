"""Which numbers dropout keeps, from a seed, both ways; nothing is stored.

drawn
    PyTorch draws a CPU's mask one double at a time (5.4 ms for a million numbers). Here a mask is integers that are
    all ones or all zeros, made by a few vectorised integer operations from numpy's SFC64, and `and`-ed with the
    numbers' own bits: 1.2 ms, two cores.
hashed
    Where chains are compiled (`ops.fusion`), a mask is made where it is used, from each number's place and a seed, so
    nothing is drawn or read. The hash is Wellons' `lowbias32` (https://nullprogram.com/blog/2018/07/31/), of which 16
    bits count.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEVELS = 2**16

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class DropoutMasks:
    """Dropout masks one after another, the same for the same seed and shapes.

    Args:
        dropout: share that is dropped, in [0, 1); rounded to a 65536th.
    """

    def __init__(self, dropout: float, seed: int) -> None:
        self._kept_below = levels_kept(dropout) - LEVELS // 2
        self._bits = np.random.SFC64(seed)

    def draw(self, like: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Return -1 (all bits set) where a number stays, else 0, in integers as wide as `like`'s numbers."""
        words = self._bits.random_raw(-(-like.numel() // 4)).view(np.int16)
        bits = torch.from_numpy(words)[: like.numel()]
        # The sign of (bits - threshold), which would overflow at one end of 16 bits.
        least, most = -(LEVELS // 2), LEVELS // 2 - 1
        bits.clamp_(max(least, least + self._kept_below), min(most, most + self._kept_below))
        bits.sub_(self._kept_below).bitwise_right_shift_(15)
        return bits.view(like.shape).to(_INTEGERS[like.element_size()])


def keep_(x: Float[Tensor, "*shape"], mask: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return `x` with what the mask drops put to 0, in place."""
    x.view(mask.dtype).bitwise_and_(mask)
    return x


def place_of(head: int, row: int, seq: int) -> Int[Tensor, "3"]:
    """Return where a part's first weight lies among all, and how far it is to the next row and head; modulo 2^32."""
    steps = ((head * seq + row) * seq, seq, seq * seq)
    return torch.tensor([_signed(step) for step in steps], dtype=torch.int32)


def short_seed(seed: int) -> Int[Tensor, ""]:
    """Return a seed of 32 bits."""
    return torch.tensor(_signed(seed ^ (seed >> 32)), dtype=torch.int32)


def _signed(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def kept(
    shape: tuple[int, ...], place: Int[Tensor, "3"], seed: Int[Tensor, ""], dropout: float
) -> Bool[Tensor, "..."]:
    """Return True where a weight stays, [heads rows columns]."""
    heads, rows, columns = (torch.arange(size, dtype=torch.int32) for size in shape)
    return _stays(
        columns + rows[:, None] * place[1] + heads[:, None, None] * place[2] + place[0], seed, dropout
    )


def kept_in_a_row(size: int, seed: Int[Tensor, ""], dropout: float) -> Bool[Tensor, " size"]:
    """Return True where a number stays, of so many."""
    return _stays(torch.arange(size, dtype=torch.int32), seed, dropout)


def _stays(place: Int[Tensor, "*shape"], seed: Int[Tensor, ""], dropout: float) -> Bool[Tensor, "*shape"]:
    number = place ^ seed
    number = (number ^ ((number >> 16) & 0xFFFF)) * 0x7FEB352D
    number = (number ^ ((number >> 15) & 0x1FFFF)) * _signed(0x846CA68B)
    return ((number ^ ((number >> 16) & 0xFFFF)) & 0xFFFF) >= LEVELS - levels_kept(dropout)


def dropout_gain(dropout: float) -> float:
    """Return what is left is to be multiplied by, so that its mean stays."""
    return LEVELS / levels_kept(dropout)


def levels_kept(dropout: float) -> int:
    """Return how many of all levels of 16 random bits keep a number: at least one."""
    return LEVELS - min(round(dropout * LEVELS), LEVELS - 1)


def draw_seed() -> int:
    """Return a seed from torch's CPU generator: one draw, so `torch.manual_seed` and checkpointing govern the masks."""
    return int(torch.randint(2**62, ()))
