"""Attention with dropout as one operation for a CPU, which keeps what comes in and a seed.

Heads lie one after another, and a few at a time pass through the cache. What stands between scores and weights is
`attention_weights`'s, in one of two ways. Squares, weights and masks are made again in the backward pass.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from loopscope.ops.attention_weights import FusedWeights, PlainWeights
from loopscope.ops.cpu_sizes import cpu_sizes
from loopscope.ops.fusion import fused
from loopscope.ops.step_scope import scratch_buffer

BYTES = 2**22
"""Of squares that are worked on at a time: the fastest of 2^20, 2^21 and 2^22 on two cores."""


class DropoutAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        dropout: float,
        causal: bool,
        seed: int,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, bias)
        ctx.make_weights = partial(
            FusedWeights if fused() else PlainWeights, dropout=dropout, causal=causal, seed=seed
        )
        weights = ctx.make_weights(bias, scale=query.shape[-1] ** -0.5)
        like = query.shape
        query, key, value = _all_stacked(query, key, value, weights.query_factor)
        out = scratch_buffer("mixed", query.shape, query.dtype)
        square = weights.ready(_square("square", query))
        for heads in _groups(query):
            dropped = square[: heads.stop - heads.start]
            weights.forward(query[heads], key[heads], dropped, heads.start)
            torch.bmm(dropped, value[heads], out=out[heads])
        return _by_token(out, like, weights.mixed_factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias = ctx.saved_tensors
        weights = ctx.make_weights(bias, scale=query.shape[-1] ** -0.5)
        like, grad_mixed = query.shape, _stacked("mixed gradient", grad_out)
        query, key, value = _all_stacked(query, key, value, weights.query_factor)
        grad_query, grad_key, grad_value = (
            scratch_buffer(use, query.shape, query.dtype) for use in ("grad query", "grad key", "grad value")
        )
        square, grad_scores = (weights.ready(_square(use, query)) for use in ("square", "scores gradient"))
        for heads in _groups(query):
            dropped, grad = (one[: heads.stop - heads.start] for one in (square, grad_scores))
            inputs = query[heads], key[heads], value[heads], grad_mixed[heads]
            weights.backward(inputs, dropped, grad, heads.start)
            torch.bmm(grad, key[heads], out=grad_query[heads])
            torch.bmm(grad.transpose(1, 2), query[heads], out=grad_key[heads])
            torch.bmm(dropped.transpose(1, 2), grad_mixed[heads], out=grad_value[heads])
        return (
            _by_token(grad_query, like, weights.query_factor * weights.mixed_factor),
            _by_token(grad_key, like, weights.mixed_factor),
            _by_token(grad_value, like, weights.mixed_factor),
            *(None,) * 4,
        )


def _stacked(
    use: str, x: Float[Tensor, "batch heads seq head_dim"], factor: float = 1.0
) -> Float[Tensor, "stack seq head_dim"]:
    """Return x · factor, heads of all rows one after another: batched products read it without copies of their own."""
    return _times(x, factor, scratch_buffer(use, x.shape, x.dtype)).flatten(0, 1)


def _all_stacked(
    query: Tensor, key: Tensor, value: Tensor, query_factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    # Made again in the backward pass: kept, they would leave a hole as large as the rows that they were cut from.
    return _stacked("query", query, query_factor), _stacked("key", key), _stacked("value", value)


def _by_token(
    x: Float[Tensor, "stack seq head_dim"], like: torch.Size, factor: float
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Return x · factor as the layer's matrices read and write it: heads side by side in the last axis of a token."""
    batch, heads, seq, head_dim = like
    return _times(x.view(like), factor, x.new_empty(batch, seq, heads, head_dim).transpose(1, 2))


def _times(x: Tensor, factor: float, out: Tensor) -> Tensor:
    return out.copy_(x) if factor == 1 else torch.mul(x, factor, out=out)


def _together(query: Float[Tensor, "stack seq head_dim"]) -> int:
    """Return how many heads have squares are of `BYTES` or so."""
    seq = query.shape[1]
    at_a_time = cpu_sizes().squares or BYTES
    return min(len(query), max(1, at_a_time // (seq * seq * query.element_size())))


def _square(use: str, query: Float[Tensor, "stack seq head_dim"]) -> Float[Tensor, "together seq seq"]:
    """Return room for the squares of heads that are worked on together."""
    seq = query.shape[1]
    return scratch_buffer(use, (_together(query), seq, seq), query.dtype)


def _groups(query: Float[Tensor, "stack seq head_dim"]) -> Iterator[slice]:
    """Yield the heads that are worked on at a time."""
    stack, together = len(query), _together(query)
    for head in range(0, stack, together):
        yield slice(head, min(head + together, stack))
