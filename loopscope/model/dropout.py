"""Dropout on a CPU from a seed: 16 random bits a number, and no mask kept.

PyTorch draws a CPU's mask one double at a time (5.4 ms for a million numbers) and keeps it. Here a mask is integers
that are all ones or all zeros, made by a few vectorised integer operations from numpy's SFC64, and `and`-ed with the
numbers' own bits: 1.2 ms, two cores. The backward pass draws it again: what is kept is a seed.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

LEVELS = 2**16

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Masks:
    """Masks one after another, the same for the same seed and shapes.

    Args:
        dropout: share that is dropped, in [0, 1); rounded to a 65536th.
    """

    def __init__(self, dropout: float, seed: int) -> None:
        self._kept_below = levels_kept(dropout) - LEVELS // 2
        self._bits = np.random.SFC64(seed)

    def draw(self, like: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """-1 (all bits set) where a number stays, else 0, in integers as wide as `like`'s numbers."""
        words = self._bits.random_raw(-(-like.numel() // 4)).view(np.int16)
        bits = torch.from_numpy(words)[: like.numel()]
        # The sign of (bits - threshold), which would overflow at one end of 16 bits.
        least, most = -(LEVELS // 2), LEVELS // 2 - 1
        bits.clamp_(max(least, least + self._kept_below), min(most, most + self._kept_below))
        bits.sub_(self._kept_below).bitwise_right_shift_(15)
        return bits.view(like.shape).to(_INTEGERS[like.element_size()])


def keep_(x: Float[Tensor, "*shape"], mask: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`x` with what the mask drops put to 0, in place."""
    x.view(mask.dtype).bitwise_and_(mask)
    return x


def gain(dropout: float) -> float:
    """What is left is multiplied by, so that its mean stays."""
    return LEVELS / levels_kept(dropout)


def draw_seed() -> int:
    """A seed from torch's CPU generator: one draw, so `torch.manual_seed` and checkpointing govern the masks."""
    return int(torch.randint(2**62, ()))


class Dropout(nn.Dropout):
    """`nn.Dropout`; in training on a CPU, outside compiled layers, with masks of `Masks`."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        ours = self.training and 0 < self.p < 1 and x.device.type == "cpu" and not self.inplace
        if not ours or torch.compiler.is_compiling():
            return super().forward(x)
        return _Dropout.apply(x, self.p, draw_seed())


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float, seed: int) -> Tensor:
        ctx.dropout, ctx.seed = dropout, seed
        mask = Masks(dropout, seed).draw(x)
        return torch.bitwise_and(x.view(mask.dtype), mask).view(x.dtype).mul_(gain(dropout))

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        return _Dropout.apply(above, ctx.dropout, ctx.seed), None, None


def levels_kept(dropout: float) -> int:
    """How many of all levels of 16 random bits keep a number: at least one."""
    return LEVELS - min(round(dropout * LEVELS), LEVELS - 1)
