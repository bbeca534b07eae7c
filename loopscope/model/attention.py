"""Causal self-attention by scaled_dot_product_attention, with learned or rotary positions."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

ROTARY_BASE = 10_000.0


class CausalSelfAttention(nn.Module):
    """Multi-head attention without biases. The rows of `qkv` are queries, keys, values, each by head."""

    def __init__(self, dim: int, heads: int, dropout: float, rotary: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.rotary = rotary
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        query, key, value = rearrange(
            self.qkv(x),
            "batch seq (three heads head) -> three batch heads seq head",
            three=3,
            heads=self.heads,
        )
        if self.rotary:
            cos, sin = rotary_angles(x.shape[1], query.shape[-1], x.device)
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed = F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        return self.out(rearrange(mixed, "batch heads seq head -> batch seq (heads head)"))


def rotary_angles(
    seq: int, head: int, device: torch.device
) -> tuple[Float[Tensor, "seq half"], Float[Tensor, "seq half"]]:
    """Cosines and sines of Su et al., "RoFormer" (arXiv 2104.09864), in fp32, for positions 0..seq-1."""
    frequency = ROTARY_BASE ** (-torch.arange(0, head, 2, device=device, dtype=torch.float32) / head)
    angle = torch.outer(torch.arange(seq, device=device, dtype=torch.float32), frequency)
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "batch heads seq head"], cos: Float[Tensor, "seq half"], sin: Float[Tensor, "seq half"]
) -> Float[Tensor, "batch heads seq head"]:
    """Rotate channel pairs (i, i + half) by their position's angle; keeps the dtype and every norm."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
