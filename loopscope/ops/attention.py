"""Attention by the kernel that is fastest for the job: PyTorch's, or on a CPU one of two ways round it.

dropout on a CPU
    PyTorch's fused kernel has none there. `scaled_dot_product_attention` falls back to plain products, keeps three
    squares per head for the backward pass and draws its mask one double at a time. Here a few heads at a time pass
    through the cache, the mask takes 16 random bits a weight (`ops.dropout_masks`), and the backward pass computes
    weights and mask again, from a seed. 8 × 8 heads × 256 × 64 in bf16, two cores, forward and backward: 17 ms. Memory:
    seven copies of what comes in and two squares of a few heads, for the moment (in a step: for its length, and once).
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

from loopscope.numerics import matmul_dtype
from loopscope.ops.attention_dropout import DropoutAttention
from loopscope.ops.cpu_sizes import cpu_sizes
from loopscope.ops.dispatch import cpu_ops_apply
from loopscope.ops.dropout_masks import draw_seed

NARROW = 32
"""Channels of a head up to which bf16 attention goes in fp32 on a CPU."""


def attention(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    value: Float[Tensor, "batch kv_heads keys head_dim"],
    dropout: float = 0.0,
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = True,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Return softmax(query keyᵀ / √head_dim) value, with dropout on the weights.

    Heads share the keys of fewer heads in groups.

    Args:
        mask: what a token (row) sees.
        causal: without a mask: itself and all before it, instead of everything.
    """
    grouped = query.shape[1] != key.shape[1]
    square = query.shape[2] == key.shape[2] and (mask is not None or causal)
    if dropout > 0 and square and not grouped and cpu_ops_apply("attention", query):
        return attention_with_dropout(query, key, value, dropout, mask)
    dtype = query.dtype
    widens = dtype == torch.bfloat16 and query.requires_grad and cpu_ops_apply("narrow_attention", query)
    widens = widens and query.shape[-1] <= _narrow()
    with torch.autocast("cpu", enabled=False) if widens else nullcontext():
        if widens:
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
    # Autocast casts for the next product; a model whose own weights are 16 bits wide needs its own dtype.
    return mixed if torch.is_autocast_enabled(query.device.type) else mixed.to(dtype)


def _narrow() -> int:
    found = cpu_sizes().narrow
    return NARROW if found is None else found


def attention_with_dropout(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch heads seq head_dim"],
    value: Float[Tensor, "batch heads seq head_dim"],
    dropout: float,
    mask: Bool[Tensor, "seq seq"] | None = None,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Return softmax(query keyᵀ / √head_dim, masked), with dropout on its weights, times value.

    Args:
        dropout: rounded to a 65536th. Draws a seed from torch's CPU generator.
        mask: what a token (row) sees; None: itself and all before it.
    """
    query, key, value = (one.to(matmul_dtype(one)) for one in (query, key, value))
    seq = query.shape[2]
    visible = torch.ones(seq, seq, dtype=torch.bool, device=query.device).tril() if mask is None else mask
    bias = torch.zeros(seq, seq, dtype=query.dtype, device=query.device).masked_fill_(~visible, -math.inf)
    return DropoutAttention.apply(query, key, value, bias, dropout, mask is None, draw_seed())
