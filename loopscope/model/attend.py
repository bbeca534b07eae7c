"""Attention by the kernel that is fastest for the job: PyTorch's, or on a CPU one of two ways round it.

dropout on a CPU
    PyTorch's fused kernel has none there. `scaled_dot_product_attention` falls back to plain products, keeps three
    squares per head for the backward pass and draws its mask one double at a time. Here a few heads at a time pass
    through the cache, the mask takes 16 random bits a weight, and the backward pass computes weights and mask again,
    from the generator's state. 8 × 8 heads × 256 × 64, one core, forward and backward: 62 ms against 91 in bf16, 77
    against 90 in fp32. Memory: squares of a few heads, for the moment.
bf16, narrow heads on a CPU
    The fused kernel's backward pass takes 18.6 ms where the fp32 one takes 4.5 (16 × 4 × 128 × 32): fp32 it is. At 64
    channels the two are equal, and bf16 keeps half the memory.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BYTES = 2**21
"""Of one square that is worked on at a time: several of them fit the second cache of a core."""

ROWS = 64
"""Rows of a causal square that are worked on at a time, up to the last column that they see: half is never touched."""

NARROW = 32
"""Channels of a head up to which bf16 attention goes in fp32 on a CPU."""

_LEVELS = 2**16


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
    here = query.device.type == "cpu" and not torch.compiler.is_compiling()
    if here and not torch.backends.cuda.flash_sdp_enabled():
        here = (
            False  # inside `sdpa_kernel(SDPBackend.MATH)`: second derivatives are wanted, or products counted
        )
    square = query.shape[2] == key.shape[2] and (mask is not None or causal)
    if here and dropout > 0 and square and not grouped:
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
        dropout: rounded to a 65536th. Draws from torch's CPU generator.
        mask: what a token (row) sees; None: itself and all before it.
    """
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    seq = query.shape[2]
    seen = torch.ones(seq, seq, dtype=torch.bool, device=query.device).tril() if mask is None else mask
    hidden = torch.zeros(seq, seq, dtype=query.dtype, device=query.device).masked_fill_(~seen, -math.inf)
    return _Attention.apply(query, key, value, hidden, dropout, mask is None)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, dropout: float, causal: bool
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, hidden, torch.get_rng_state())
        ctx.dropout, ctx.causal = dropout, causal
        batch, heads, seq, head = query.shape
        # As the layer reads it: heads side by side in the last axis.
        out = query.new_empty(batch, seq, heads, head).transpose(1, 2)
        for part, rows, seen in _parts(query, causal):
            weights = _weights(query, key, hidden, part, rows, seen)
            weights.mul_(_kept(weights, dropout, torch.default_generator))
            out[*part, rows] = torch.matmul(weights, value[*part, seen])
        return out.mul_(_gain(dropout))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, hidden, state = ctx.saved_tensors
        generator = torch.Generator().set_state(state)
        by_query, by_key, by_value = (torch.zeros_like(part) for part in (query, key, value))
        upstream = upstream * _gain(ctx.dropout)
        for part, rows, seen in _parts(query, ctx.causal):
            weights = _weights(query, key, hidden, part, rows, seen)
            kept = _kept(weights, ctx.dropout, generator)
            above = upstream[*part, rows]
            by_weights = torch.matmul(above, value[*part, seen].transpose(-2, -1)).mul_(kept)
            slope = torch._softmax_backward_data(by_weights, weights, -1, weights.dtype)
            by_query[*part, rows] = torch.matmul(slope, key[*part, seen])
            by_key[*part, seen] += torch.matmul(slope.transpose(-2, -1), query[*part, rows])
            by_value[*part, seen] += torch.matmul(weights.mul_(kept).transpose(-2, -1), above)
        scale = query.shape[-1] ** -0.5
        return by_query.mul_(scale), by_key.mul_(scale), by_value, None, None, None


def _parts(query: Tensor, causal: bool) -> Iterator[tuple[tuple[slice, slice], slice, slice]]:
    """Cuts over batch and heads whose squares are of `BYTES` or so; in each, rows and the columns that they see."""
    batch, heads, seq, _ = query.shape
    each = seq * seq * query.element_size()
    together = max(1, BYTES // each)
    for row in range(0, batch, max(1, together // heads)):
        for head in range(0, heads, together):
            part = slice(row, row + max(1, together // heads)), slice(head, head + together)
            for start in range(0, seq, ROWS if causal else seq):
                end = min(start + ROWS, seq) if causal else seq
                yield part, slice(start, end), slice(0, end)


def _weights(
    query: Tensor, key: Tensor, hidden: Tensor, part: tuple[slice, slice], rows: slice, seen: slice
) -> Tensor:
    scaled = query[*part, rows] * query.shape[-1] ** -0.5
    scores = torch.matmul(scaled, key[*part, seen].transpose(-2, -1)).add_(hidden[rows, seen])
    return torch.softmax(scores, dim=-1)


def _kept(weights: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """0 with probability `dropout`, else 1."""
    words = torch.empty(-(-weights.numel() // 4), dtype=torch.int64)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)[: weights.numel()]
    return (bits >= _dropped(dropout) - _LEVELS // 2).view(weights.shape).to(weights.dtype)


def _gain(dropout: float) -> float:
    """What is left is multiplied by, so that its mean stays."""
    return _LEVELS / (_LEVELS - _dropped(dropout))


def _dropped(dropout: float) -> int:
    return min(round(dropout * _LEVELS), _LEVELS - 1)
