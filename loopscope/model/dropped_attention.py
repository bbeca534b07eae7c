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

from loopscope.kernels import fuses, linear, narrowed, product, scratch
from loopscope.model.gathered import Gathered
from loopscope.model.weighing import ByPasses, ByPlace

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
        matrix: Tensor | None,
        own: Gathered | None,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, hidden, matrix)
        ctx.own = own
        ctx.way = partial(ByPlace if fuses() else ByPasses, dropout=dropout, causal=causal, seed=seed)
        weighing = ctx.way(hidden, scale=query.shape[-1] ** -0.5)
        stacked = _stacked("query", query, weighing.before)
        key, value = _stacked("key", key), _stacked("value", value)
        out = scratch("mixed", stacked.shape, stacked.dtype)
        square = weighing.ready(_square("square", stacked))
        for heads in _groups(stacked):
            dropped = square[: heads.stop - heads.start]
            weighing.forward(stacked[heads], key[heads], dropped, heads.start)
            torch.bmm(dropped, value[heads], out=out[heads])
        if matrix is None:
            return _by_token(out, query, weighing.after)
        return linear(_side_by_side(out, query, weighing.after), narrowed(matrix, out.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, hidden, matrix = ctx.saved_tensors
        like, out = query, None
        weighing = ctx.way(hidden, scale=query.shape[-1] ** -0.5)
        if matrix is not None:
            after = upstream.flatten(0, 1)
            by_mixed = product(after, narrowed(matrix, after.dtype)).unflatten(0, upstream.shape[:2])
            upstream = by_mixed.unflatten(-1, (like.shape[1], -1)).transpose(1, 2)
            if ctx.needs_input_grad[7]:
                out = scratch("mixed", query.flatten(0, 1).shape, query.dtype)
        query, key = _stacked("query", query, weighing.before), _stacked("key", key)
        value, above = _stacked("value", value), _stacked("above", upstream)
        by_query, by_key, by_value = (torch.empty_like(part) for part in (query, key, value))
        square, slopes = (weighing.ready(_square(use, query)) for use in ("square", "slopes"))
        for heads in _groups(query):
            dropped, slope = (one[: heads.stop - heads.start] for one in (square, slopes))
            inputs = query[heads], key[heads], value[heads], above[heads]
            weighing.backward(*inputs, dropped, slope, heads.start)
            torch.bmm(slope, key[heads], out=by_query[heads])
            torch.bmm(slope.transpose(1, 2), query[heads], out=by_key[heads])
            torch.bmm(dropped.transpose(1, 2), above[heads], out=by_value[heads])
            if out is not None:
                torch.bmm(dropped, value[heads], out=out[heads])
        if out is not None:
            ctx.own.add(after, _side_by_side(out, like, weighing.after).flatten(0, 1))
        return (
            _by_token(by_query, like, weighing.before * weighing.after),
            _by_token(by_key, like, weighing.after),
            _by_token(by_value, like, weighing.after),
            *(None,) * 6,
        )


def _stacked(
    use: str, x: Float[Tensor, "batch heads seq head"], factor: float = 1.0
) -> Float[Tensor, "stack seq head"]:
    """x · factor, heads of all rows one after another: what batched products read without copies of their own."""
    return _times(x, factor, scratch(use, x.shape, x.dtype)).flatten(0, 1)


def _by_token(
    x: Float[Tensor, "stack seq head"], like: Float[Tensor, "batch heads seq head"], factor: float
) -> Float[Tensor, "batch heads seq head"]:
    """x · factor as the layer's matrices read and write it: heads side by side in the last axis of a token."""
    batch, heads, seq, head = like.shape
    return _times(x.view(like.shape), factor, x.new_empty(batch, seq, heads, head).transpose(1, 2))


def _side_by_side(
    x: Float[Tensor, "stack seq head"], like: Float[Tensor, "batch heads seq head"], factor: float
) -> Float[Tensor, "batch seq dim"]:
    """x · factor, as the layer's last matrix reads it."""
    batch, heads, seq, head = like.shape
    room = scratch("side by side", (batch, seq, heads, head), x.dtype)
    _times(x.view(like.shape), factor, room.transpose(1, 2))
    return room.flatten(2)


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
