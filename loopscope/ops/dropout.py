"""Dropout on the way into the residual, on a CPU, with masks from a seed, which is all that is kept."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics import wide
from loopscope.ops.dispatch import cpu_ops_apply, is_plain
from loopscope.ops.dropout_masks import DropoutMasks, draw_seed, dropout_gain, kept_in_a_row, short_seed
from loopscope.ops.fusion import Fusable, fused


def dropout_add(
    hidden: Float[Tensor, "*shape"],
    added: Float[Tensor, "*shape"],
    dropout: nn.Module | None = None,
    observed: Iterable[nn.Module] = (),
) -> Float[Tensor, "*shape"]:
    """Return hidden + dropout(added), in hidden's dtype.

    Args:
        dropout: None: none.
        observed: modules that `added` comes from, whose hooks may have it in hand.
    """
    rate = _rate(dropout)
    if rate is not None and can_dropout_add(hidden, added, rate):
        return dropout_add_at(hidden, added, rate)
    if dropout is not None and dropout.training:
        added = dropout(added)
    alike = added.dtype == hidden.dtype and added.shape == hidden.shape
    if alike and added.requires_grad and cpu_ops_apply("add", added, observed=observed):
        return added.add_(hidden)  # nobody else has it: one block less between those that are kept
    return hidden + added


def can_dropout_add(hidden: Tensor, added: Tensor, rate: float) -> bool:
    """Return whether one operation does both, faster than PyTorch's sum: it drops, or has something to widen."""
    if rate >= 1 or hidden.shape != added.shape or not added.requires_grad:
        return False
    # The predicate first: inside a compiled layer `fused` cannot be asked.
    return cpu_ops_apply("dropout_add", added) and (rate > 0 or (fused() and hidden.dtype != added.dtype))


def _rate(dropout: nn.Module | None) -> float | None:
    """Return the share that a module drops now; None of a module that may do anything else."""
    if dropout is None or not dropout.training:
        return 0.0
    return dropout.p if isinstance(dropout, nn.Dropout) and is_plain(dropout) else None


def dropout_add_at(
    hidden: Float[Tensor, "*shape"], added: Float[Tensor, "*shape"], rate: float
) -> Float[Tensor, "*shape"]:
    """Return hidden + dropout(added) with a share of `rate` dropped; the fast operation itself."""
    return _DropoutAdd.apply(hidden, added, rate, draw_seed() if rate else 0, fused())


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, rate: float, seed: int, hashed: bool) -> Tensor:
        ctx.dtype, ctx.settings = x.dtype, (rate, seed, hashed)
        return _dropout(x, dtype, rate, seed, hashed)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        return _Dropout.apply(grad_out, ctx.dtype, *ctx.settings), *(None,) * 4


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, added: Tensor, rate: float, seed: int, hashed: bool) -> Tensor:
        ctx.dtype, ctx.settings = added.dtype, (rate, seed, hashed)
        if hashed:
            return _add_dropped(hidden, added, short_seed(seed), rate) if rate else _add(hidden, added)
        return _dropout(added, hidden.dtype, rate, seed, hashed).add_(hidden)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        return grad_out, _Dropout.apply(grad_out, ctx.dtype, *ctx.settings), *(None,) * 3


def _dropout(x: Tensor, dtype: torch.dtype, rate: float, seed: int, hashed: bool) -> Tensor:
    """Return dropout(x) in another dtype, by either kind of mask; never x itself."""
    if not rate:
        return x.to(dtype, copy=True)
    if hashed:
        return _drop(x, dtype, short_seed(seed), rate)
    mask = DropoutMasks(rate, seed).draw(x)
    return torch.bitwise_and(x.view(mask.dtype), mask).view(x.dtype).to(dtype).mul_(dropout_gain(rate))


def _drop_formula(x: Tensor, dtype: torch.dtype, seed: Tensor, rate: float) -> Tensor:
    stays = kept_in_a_row(x.numel(), seed, rate).view(x.shape)
    return torch.where(stays, wide(x) * dropout_gain(rate), 0.0).to(dtype)


def _add_dropped_formula(hidden: Tensor, added: Tensor, seed: Tensor, rate: float) -> Tensor:
    return hidden + _drop_formula(added, hidden.dtype, seed, rate)


def _add_formula(hidden: Tensor, added: Tensor) -> Tensor:
    return hidden + added.to(hidden.dtype)


_add = Fusable(_add_formula, _add_formula)
_drop = Fusable(_drop_formula, _drop_formula)
_add_dropped = Fusable(_add_dropped_formula, _add_dropped_formula)
