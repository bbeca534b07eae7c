"""Attention with dropout as one operation for a CPU, which keeps what comes in and a seed.

Heads lie one after another, and a few at a time pass through the cache. What stands between scores and weights is
`model.weighing`'s, in one of two ways. Squares, weights and masks are made again in the backward pass.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from loopscope.ops.attention_weights import ByPasses, ByPlace
from loopscope.ops.fusion import fuses
from loopscope.ops.step_scope import scratch

BYTES = 2**22
"""Of squares that are worked on at a time: the fastest of 2^20, 2^21 and 2^22 on two cores."""


class DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        hidden: Tensor,
        dropout: float,
        causal: bool,
        seed: int,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, hidden)
        ctx.way = partial(ByPlace if fuses() else ByPasses, dropout=dropout, causal=causal, seed=seed)
        weighing = ctx.way(hidden, scale=query.shape[-1] ** -0.5)
        like = query.shape
        query, key, value = _all_stacked(query, key, value, weighing.before)
        out = scratch("mixed", query.shape, query.dtype)
        square = weighing.ready(_square("square", query))
        for heads in _groups(query):
            dropped = square[: heads.stop - heads.start]
            weighing.forward(query[heads], key[heads], dropped, heads.start)
            torch.bmm(dropped, value[heads], out=out[heads])
        return _by_token(out, like, weighing.after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, hidden = ctx.saved_tensors
        weighing = ctx.way(hidden, scale=query.shape[-1] ** -0.5)
        like, above = query.shape, _stacked("above", upstream)
        query, key, value = _all_stacked(query, key, value, weighing.before)
        by_query, by_key, by_value = (
            scratch(use, query.shape, query.dtype) for use in ("by query", "by key", "by value")
        )
        square, slopes = (weighing.ready(_square(use, query)) for use in ("square", "slopes"))
        for heads in _groups(query):
            dropped, slope = (one[: heads.stop - heads.start] for one in (square, slopes))
            inputs = query[heads], key[heads], value[heads], above[heads]
            weighing.backward(inputs, dropped, slope, heads.start)
            torch.bmm(slope, key[heads], out=by_query[heads])
            torch.bmm(slope.transpose(1, 2), query[heads], out=by_key[heads])
            torch.bmm(dropped.transpose(1, 2), above[heads], out=by_value[heads])
        return (
            _by_token(by_query, like, weighing.before * weighing.after),
            _by_token(by_key, like, weighing.after),
            _by_token(by_value, like, weighing.after),
            *(None,) * 4,
        )


def _stacked(
    use: str, x: Float[Tensor, "batch heads seq head"], factor: float = 1.0
) -> Float[Tensor, "stack seq head"]:
    """x · factor, heads of all rows one after another: what batched products read without copies of their own."""
    return _times(x, factor, scratch(use, x.shape, x.dtype)).flatten(0, 1)


def _all_stacked(query: Tensor, key: Tensor, value: Tensor, before: float) -> tuple[Tensor, Tensor, Tensor]:
    # Made again in the backward pass: kept, they would leave a hole as large as the rows that they were cut from.
    return _stacked("query", query, before), _stacked("key", key), _stacked("value", value)


def _by_token(
    x: Float[Tensor, "stack seq head"], like: torch.Size, factor: float
) -> Float[Tensor, "batch heads seq head"]:
    """x · factor as the layer's matrices read and write it: heads side by side in the last axis of a token."""
    batch, heads, seq, head = like
    return _times(x.view(like), factor, x.new_empty(batch, seq, heads, head).transpose(1, 2))


def _times(x: Tensor, factor: float, out: Tensor) -> Tensor:
    return out.copy_(x) if factor == 1 else torch.mul(x, factor, out=out)


def _together(query: Float[Tensor, "stack seq head"]) -> int:
    """Heads whose squares are of `BYTES` or so."""
    seq = query.shape[1]
    return min(len(query), max(1, BYTES // (seq * seq * query.element_size())))


def _square(use: str, query: Float[Tensor, "stack seq head"]) -> Float[Tensor, "together seq seq"]:
    """Room for the squares of heads that are worked on together."""
    seq = query.shape[1]
    return scratch(use, (_together(query), seq, seq), query.dtype)


def _groups(query: Float[Tensor, "stack seq head"]) -> Iterator[slice]:
    """Heads that are worked on at a time."""
    stack, together = len(query), _together(query)
    for head in range(0, stack, together):
        yield slice(head, min(head + together, stack))
