"""Attention by the kernel that is fastest for the job: PyTorch's, or on a CPU one of two ways round it.

dropout on a CPU
    PyTorch's fused kernel has none there. `scaled_dot_product_attention` falls back to plain products, keeps three
    squares per head for the backward pass and draws its mask one double at a time. Here a few heads at a time pass
    through the cache, the mask takes 16 random bits a weight (`model.dropout`), and the backward pass computes weights
    and mask again, from a seed. 8 × 8 heads × 256 × 64 in bf16, two cores, forward and backward: 17 ms. Memory: three
    copies of what comes in and two squares of a few heads, for the moment. With the layer's last matrix in the same
    operation (`attention_through`), what it mixes is made again too.
bf16, narrow heads on a CPU
    The fused kernel's backward pass takes 18.6 ms where the fp32 one takes 4.5 (16 × 4 × 128 × 32): fp32 it is. At 64
    channels the two are equal, and bf16 keeps half the memory.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from loopscope.kernels import fuses, narrowed, scratch
from loopscope.model.dropout import Masks, draw_seed, gain, keep_
from loopscope.model.own import by_matrix, own_operations
from loopscope.model.weighing import PARTS, place_of, short_seed, weigh_, weigh_back_

BYTES = 2**22
"""Of squares that are worked on at a time: the fastest of 2^20, 2^21 and 2^22 on two cores."""

ROWS = 64
"""Rows of a causal square that are worked on at a time, up to the last column that they see: half is never touched."""

NARROW = 32
"""Channels of a head up to which bf16 attention goes in fp32 on a CPU."""


def attend(
    query: Float[Tensor, "batch heads seq head"],
    key: Float[Tensor, "batch kv_heads keys head"],
    value: Float[Tensor, "batch kv_heads keys head"],
    dropout: float = 0.0,
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = True,
) -> Float[Tensor, "batch heads seq head"]:
    """softmax(query keyᵀ / √head) value, with dropout on the weights. Heads share the keys of fewer heads in groups.

    Args:
        mask: what a token (row) sees.
        causal: without a mask: itself and all before it, instead of everything.
    """
    grouped = query.shape[1] != key.shape[1]
    here = own_operations(query)
    if drops(query, key, dropout, mask, causal):
        return attention_with_dropout(query, key, value, dropout, mask)
    kind = query.dtype
    narrow = kind == torch.bfloat16 and query.shape[-1] <= NARROW and query.requires_grad
    with torch.autocast("cpu", enabled=False) if here and narrow else nullcontext():
        if here and narrow:
            query, key, value = query.float(), key.float(), value.float()
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=causal and mask is None,
            enable_gqa=grouped,
        )
    # Autocast casts for the next product; a model whose own weights are 16 bits wide needs its own type.
    return mixed if torch.is_autocast_enabled(query.device.type) else mixed.to(kind)


def attention_with_dropout(
    query: Float[Tensor, "batch heads seq head"],
    key: Float[Tensor, "batch heads seq head"],
    value: Float[Tensor, "batch heads seq head"],
    dropout: float,
    mask: Bool[Tensor, "seq seq"] | None = None,
) -> Float[Tensor, "batch heads seq head"]:
    """softmax(query keyᵀ / √head, masked), with dropout on its weights, times value.

    Args:
        dropout: rounded to a 65536th. Draws a seed from torch's CPU generator.
        mask: what a token (row) sees; None: itself and all before it.
    """
    query, key, value, hidden = _ready(query, key, value, mask)
    return _Attention.apply(query, key, value, hidden, dropout, mask is None, draw_seed(), None)


def attention_through(
    query: Float[Tensor, "batch heads seq head"],
    key: Float[Tensor, "batch heads seq head"],
    value: Float[Tensor, "batch heads seq head"],
    dropout: float,
    mask: Bool[Tensor, "seq seq"] | None,
    matrix: Float[Tensor, "dim dim"],
) -> Float[Tensor, "batch seq dim"]:
    """`attention_with_dropout` and then a layer's last matrix, of which the values it mixes are not kept."""
    query, key, value, hidden = _ready(query, key, value, mask)
    return _Attention.apply(query, key, value, hidden, dropout, mask is None, draw_seed(), matrix)


def drops(query: Tensor, key: Tensor, dropout: float, mask: Tensor | None, causal: bool) -> bool:
    """Whether attention goes by the operation with dropout for a CPU."""
    square = query.shape[2] == key.shape[2] and (mask is not None or causal)
    return own_operations(query) and dropout > 0 and square and query.shape[1] == key.shape[1]


def _ready(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In autocast's type, and what is added to scores."""
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    seq = query.shape[2]
    seen = torch.ones(seq, seq, dtype=torch.bool, device=query.device).tril() if mask is None else mask
    hidden = torch.zeros(seq, seq, dtype=query.dtype, device=query.device).masked_fill_(~seen, -math.inf)
    return query, key, value, hidden


class _Attention(torch.autograd.Function):
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
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, hidden, matrix)
        ctx.dropout, ctx.causal, ctx.seed = dropout, causal, seed
        scaled, key, value = _scaled(query), _stacked("key", key), _stacked("value", value)
        out, masks = scratch("mixed", scaled.shape, scaled.dtype), Masks(dropout, seed)
        square = _square("square", scaled)
        ctx.fused = fuses()
        for heads, parts in _groups(scaled, causal, ctx.fused):
            dropped = square[: heads.stop - heads.start]
            if ctx.fused:
                torch.bmm(scaled[heads], key[heads].transpose(1, 2), out=dropped)
                for rows, seen in parts:
                    place = place_of(heads.start, rows.start, hidden.shape[0])
                    weigh_(dropped[:, rows, seen], hidden[rows, seen], place, short_seed(seed), dropout)
                    dropped[:, rows, seen.stop :].zero_()
                parts = ()
            for rows, seen in parts:
                weights = _weights(scaled[heads], key[heads], hidden, rows, seen, causal)
                dropped[:, rows, seen] = keep_(weights, masks.draw(weights))
            torch.bmm(dropped, value[heads], out=out[heads])
        if matrix is None:
            return _by_token(out, query, gain(dropout))
        return F.linear(_side_by_side(out, query, gain(dropout)), narrowed(matrix, out.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, hidden, matrix = ctx.saved_tensors
        like, masks, factor = query, Masks(ctx.dropout, ctx.seed), gain(ctx.dropout)
        after, out = upstream, None
        if matrix is not None:
            upstream = (
                (after @ narrowed(matrix, after.dtype)).unflatten(-1, (like.shape[1], -1)).transpose(1, 2)
            )
        if matrix is not None and ctx.needs_input_grad[7]:
            out = scratch("mixed", query.flatten(0, 1).shape, query.dtype)
        query, key, value = _scaled(query), _stacked("key", key), _stacked("value", value)
        above = _stacked("above", upstream)
        by_query, by_key, by_value = (torch.empty_like(part) for part in (query, key, value))
        square, slopes = _square("square", query), _square("slopes", query)
        for heads, parts in _groups(query, ctx.causal, ctx.fused):
            dropped, slope = (one[: heads.stop - heads.start] for one in (square, slopes))
            if ctx.fused:
                torch.bmm(query[heads], key[heads].transpose(1, 2), out=dropped)
                torch.bmm(above[heads], value[heads].transpose(1, 2), out=slope)
                for rows, seen in parts:
                    both = dropped[:, rows, seen], slope[:, rows, seen]
                    place = place_of(heads.start, rows.start, hidden.shape[0])
                    weigh_back_(*both, hidden[rows, seen], place, short_seed(ctx.seed), ctx.dropout)
                    dropped[:, rows, seen.stop :].zero_()
                    slope[:, rows, seen.stop :].zero_()
                parts = ()
            for rows, seen in parts:
                weights = _weights(query[heads], key[heads], hidden, rows, seen, ctx.causal)
                mask = masks.draw(weights)
                by_weights = torch.bmm(above[heads, rows], value[heads, seen].transpose(1, 2))
                slope[:, rows, seen] = torch._softmax_backward_data(
                    keep_(by_weights, mask), weights, -1, weights.dtype
                )
                dropped[:, rows, seen] = keep_(weights, mask)
            torch.bmm(slope, key[heads], out=by_query[heads])
            torch.bmm(slope.transpose(1, 2), query[heads], out=by_key[heads])
            torch.bmm(dropped.transpose(1, 2), above[heads], out=by_value[heads])
            if out is not None:
                torch.bmm(dropped, value[heads], out=out[heads])
        by_own = None
        if matrix is not None and out is not None:
            mixed = _side_by_side(out, like, factor).flatten(0, 1)
            by_own = by_matrix(after.flatten(0, 1), mixed).to(matrix.dtype)
        return (
            _by_token(by_query, like, factor * query.shape[-1] ** -0.5),
            _by_token(by_key, like, factor),
            _by_token(by_value, like, factor),
            *(None,) * 4,
            by_own,
        )


def _stacked(use: str, x: Float[Tensor, "batch heads seq head"]) -> Float[Tensor, "stack seq head"]:
    """Heads of all rows one after another, in one piece: what batched products read without copies of their own."""
    return scratch(use, x.shape, x.dtype).copy_(x).flatten(0, 1)


def _scaled(query: Float[Tensor, "batch heads seq head"]) -> Float[Tensor, "stack seq head"]:
    room = scratch("query", query.shape, query.dtype)
    return torch.mul(query, query.shape[-1] ** -0.5, out=room).flatten(0, 1)


def _by_token(
    x: Float[Tensor, "stack seq head"], like: Float[Tensor, "batch heads seq head"], factor: float
) -> Float[Tensor, "batch heads seq head"]:
    """x · factor as the layer's matrices read and write it: heads side by side in the last axis of a token."""
    batch, heads, seq, head = like.shape
    out = x.new_empty(batch, seq, heads, head).transpose(1, 2)
    return torch.mul(x.view(batch, heads, seq, head), factor, out=out)


def _side_by_side(
    x: Float[Tensor, "stack seq head"], like: Float[Tensor, "batch heads seq head"], factor: float
) -> Float[Tensor, "batch seq dim"]:
    """x · factor, as the layer's last matrix reads it."""
    batch, heads, seq, head = like.shape
    room = scratch("side by side", (batch, seq, heads, head), x.dtype)
    torch.mul(x.view(like.shape), factor, out=room.transpose(1, 2))
    return room.flatten(2)


def _together(query: Float[Tensor, "stack seq head"]) -> int:
    """Heads whose squares are of `BYTES` or so."""
    seq = query.shape[1]
    return min(len(query), max(1, BYTES // (seq * seq * query.element_size())))


def _square(use: str, query: Float[Tensor, "stack seq head"]) -> Float[Tensor, "together seq seq"]:
    """Zeros, for the squares of heads that are worked on together. Where causal, half of each is never written."""
    seq = query.shape[1]
    return scratch(use, (_together(query), seq, seq), query.dtype).zero_()


def _groups(
    query: Float[Tensor, "stack seq head"], causal: bool, fused: bool
) -> Iterator[tuple[slice, Sequence[tuple[slice, slice]]]]:
    """Heads that are worked on at a time; their squares' rows, a few at a time, and the columns that those see."""
    stack, seq, _ = query.shape
    together, step = _together(query), seq
    if causal:
        step = -(-seq // PARTS) if fused else ROWS
    parts = [
        (slice(start, min(start + step, seq)), slice(0, min(start + step, seq)))
        for start in range(0, seq, step)
    ]
    for head in range(0, stack, together):
        yield slice(head, min(head + together, stack)), parts


def _weights(query: Tensor, key: Tensor, hidden: Tensor, rows: slice, seen: slice, causal: bool) -> Tensor:
    scores = torch.bmm(query[:, rows], key[:, seen].transpose(1, 2))
    ragged = rows if causal else seen  # columns that not all rows see
    scores[:, :, ragged].add_(hidden[rows, ragged])
    return torch.softmax(scores, dim=-1)
