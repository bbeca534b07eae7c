"""Dropout on a CPU with masks from a seed, which is all that is kept; alone, or on the way into the residual."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics import wide
from loopscope.ops.dispatch import own_operations
from loopscope.ops.dropout_masks import Masks, draw_seed, gain, kept_in_a_row, short_seed
from loopscope.ops.fusion import Kernel, fuses


class Dropout(nn.Dropout):
    """`nn.Dropout`; in training on a CPU, outside compiled layers, with masks of `model.masks`."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        ours = self.training and 0 < self.p < 1 and x.device.type == "cpu" and not self.inplace
        if not ours or torch.compiler.is_compiling():
            return super().forward(x)
        return _Dropped.apply(x, x.dtype, self.p, draw_seed(), fuses())


def join(
    hidden: Float[Tensor, "*shape"], added: Float[Tensor, "*shape"], dropout: float
) -> Float[Tensor, "*shape"]:
    """hidden + dropout(added), in hidden's type."""
    seed = draw_seed() if dropout else 0
    return _Joined.apply(hidden, added, dropout, seed, fuses())


def joins(hidden: Tensor, added: Tensor, dropout: float) -> bool:
    """Whether `join` can do it, and is faster than PyTorch's own sum: there is dropout, or something to widen."""
    if not (torch.is_grad_enabled() and added.requires_grad and own_operations(added)) or dropout >= 1:
        return False
    return hidden.shape == added.shape and (dropout > 0 or (fuses() and hidden.dtype != added.dtype))


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: torch.dtype, dropout: float, seed: int, by_place: bool) -> Tensor:
        ctx.before, ctx.settings = x.dtype, (dropout, seed, by_place)
        return _dropped(x, kind, dropout, seed, by_place)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        return _Dropped.apply(above, ctx.before, *ctx.settings), *(None,) * 4


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, added: Tensor, dropout: float, seed: int, by_place: bool) -> Tensor:
        ctx.before, ctx.settings = added.dtype, (dropout, seed, by_place)
        if by_place:
            return _join(hidden, added, short_seed(seed), dropout) if dropout else _sum(hidden, added)
        return _dropped(added, hidden.dtype, dropout, seed, by_place).add_(hidden)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        return above, _Dropped.apply(above, ctx.before, *ctx.settings), *(None,) * 3


def _dropped(x: Tensor, kind: torch.dtype, dropout: float, seed: int, by_place: bool) -> Tensor:
    """dropout(x) in another type, by either kind of mask; never x itself."""
    if not dropout:
        return x.to(kind, copy=True)
    if by_place:
        return _drop(x, kind, short_seed(seed), dropout)
    mask = Masks(dropout, seed).draw(x)
    return torch.bitwise_and(x.view(mask.dtype), mask).view(x.dtype).to(kind).mul_(gain(dropout))


def _drop_formula(x: Tensor, kind: torch.dtype, seed: Tensor, dropout: float) -> Tensor:
    stays = kept_in_a_row(x.numel(), seed, dropout).view(x.shape)
    return torch.where(stays, wide(x) * gain(dropout), 0.0).to(kind)


def _join_formula(hidden: Tensor, added: Tensor, seed: Tensor, dropout: float) -> Tensor:
    return hidden + _drop_formula(added, hidden.dtype, seed, dropout)


def _sum_formula(hidden: Tensor, added: Tensor) -> Tensor:
    return hidden + added.to(hidden.dtype)


_sum = Kernel(_sum_formula, _sum_formula)
_drop = Kernel(_drop_formula, _drop_formula)
_join = Kernel(_join_formula, _join_formula)
