"""Attention by the kernel that is fastest for the job: PyTorch's, or on a CPU one of two ways round it.

dropout on a CPU
    PyTorch's fused kernel has none there. `scaled_dot_product_attention` falls back to plain products, keeps three
    squares per head for the backward pass and draws its mask one double at a time. Here a few heads at a time pass
    through the cache, the mask takes 16 random bits a weight (`model.masks`), and the backward pass computes weights
    and mask again, from a seed. 8 × 8 heads × 256 × 64 in bf16, two cores, forward and backward: 17 ms. Memory: seven
    copies of what comes in and two squares of a few heads, for the moment (within a step, for its length and once).
bf16, narrow heads on a CPU
    The fused kernel's backward pass takes 18.6 ms where the fp32 one takes 4.5 (16 × 4 × 128 × 32): fp32 it is. At 64
    channels the two are equal, and bf16 keeps half the memory.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.ops.attention_dropout import DroppedAttention
from loopscope.ops.dispatch import cast_once, own_operations
from loopscope.ops.dropout_masks import draw_seed

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
    grouped, here = query.shape[1] != key.shape[1], own_operations(query)
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
        dropout: rounded to a 65536th. Draws a seed from torch's CPU generator.
        mask: what a token (row) sees; None: itself and all before it.
    """
    query, key, value = cast_once(query), cast_once(key), cast_once(value)
    seq = query.shape[2]
    seen = torch.ones(seq, seq, dtype=torch.bool, device=query.device).tril() if mask is None else mask
    hidden = torch.zeros(seq, seq, dtype=query.dtype, device=query.device).masked_fill_(~seen, -math.inf)
    return DroppedAttention.apply(query, key, value, hidden, dropout, mask is None, draw_seed())
