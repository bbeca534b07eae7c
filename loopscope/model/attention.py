"""Causal self-attention by scaled_dot_product_attention, with learned or rotary positions."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from loopscope.model.adapters import apply, linear
from loopscope.model.config import ModelConfig
from loopscope.model.consistency import rotated_channels
from loopscope.model.values import GATE_CHANNELS, with_values
from loopscope.recurrence import wide

ROTARY_BASE = 10_000.0


class CausalSelfAttention(nn.Module):
    """Attention, without biases but for `qk_bias`. The rows of `qkv` are queries, keys, values, each by head.

    Keys and values may have fewer heads than queries (Ainslie et al., "GQA", arXiv 2305.13245), queries and
    keys a norm of their own (Henry et al., arXiv 2010.04245), and every token a window it sees (Beltagy et
    al., arXiv 2004.05150). A window narrower than the text is a mask: it costs what full attention costs.
    """

    def __init__(self, config: ModelConfig, adapted: bool = False, valued: bool = False) -> None:
        super().__init__()
        self.heads, self.key_value_heads = config.heads, config.key_value_heads
        self.dropout = config.dropout
        self.rotary = config.positions == "rotary"
        self.rotated = rotated_channels(config)
        self.settings = config.attention
        rows = (config.heads + 2 * config.key_value_heads) * config.head
        self.qkv = linear(config.dim, rows, config, adapted)
        self.out = linear(config.dim, config.dim, config, adapted)
        norms = config.attention.qk_norm
        self.query_norm = nn.RMSNorm(config.head, eps=config.norm_eps) if norms else None
        self.key_norm = nn.RMSNorm(config.head, eps=config.norm_eps) if norms else None
        rows = config.heads + config.key_value_heads
        self.qk_bias = nn.Parameter(torch.zeros(rows * config.head)) if self.settings.qk_bias else None
        gated = valued and self.settings.value_embeddings == "gated"
        self.value_gate = (
            nn.Linear(min(GATE_CHANNELS, config.dim), config.key_value_heads, bias=False) if gated else None
        )

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        loop: int = 1,
        values: Float[Tensor, "batch seq width"] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Attend.

        Args:
            values: the tokens' value embeddings, in a layer that has them.
        """
        rows = rearrange(
            apply(self.qkv, x, loop),
            "batch seq (heads head) -> batch heads seq head",
            heads=self.heads + 2 * self.key_value_heads,
        )
        query, key, value = rows.split([self.heads, self.key_value_heads, self.key_value_heads], dim=1)
        if values is not None:
            value = with_values(value, values, x, self.value_gate)
        if self.qk_bias is not None:
            bias = rearrange(self.qk_bias, "(heads head) -> heads 1 head", head=query.shape[-1]).to(
                query.dtype
            )
            query, key = query + bias[: self.heads], key + bias[self.heads :]
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        seq = x.shape[1]
        if self.rotary:
            settings = self.settings
            angles = rotary_angles(seq, self.rotated, x.device, settings.rotary_base, settings.rotary_scaling)
            query, key = self._turn(query, *angles), self._turn(key, *angles)
        narrow = self.settings.window is not None and self.settings.window < seq
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=window_mask(seq, self.settings.window, x.device) if narrow else None,  # type: ignore[arg-type]
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=not narrow,
            enable_gqa=self.key_value_heads != self.heads,
        )
        return apply(self.out, rearrange(mixed, "batch heads seq head -> batch seq (heads head)"), loop)

    def _turn(
        self, x: Float[Tensor, "batch heads seq head"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "batch heads seq head"]:
        if self.rotated == x.shape[-1]:
            return rotate(x, cos, sin)
        return torch.cat([rotate(x[..., : self.rotated], cos, sin), x[..., self.rotated :]], dim=-1)


def window_mask(seq: int, window: int, device: torch.device) -> Bool[Tensor, "seq seq"]:
    """True where a token (row) sees another (column): itself and the `window - 1` before it."""
    place = torch.arange(seq, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)


def rotary_angles(
    seq: int, head: int, device: torch.device, base: float = ROTARY_BASE, scaling: float = 1.0
) -> tuple[Float[Tensor, "seq half"], Float[Tensor, "seq half"]]:
    """Cosines and sines of Su et al., "RoFormer" (arXiv 2104.09864), in fp32, for positions 0..seq-1.

    Args:
        head: channels that turn.
        scaling: what positions are divided by (Chen et al., position interpolation, arXiv 2306.15595).
    """
    frequency = base ** (-torch.arange(0, head, 2, device=device, dtype=torch.float32) / head)
    place = torch.arange(seq, device=device, dtype=torch.float32)
    angle = torch.outer(place if scaling == 1 else place / scaling, frequency)
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "batch heads seq head"], cos: Float[Tensor, "seq half"], sin: Float[Tensor, "seq half"]
) -> Float[Tensor, "batch heads seq head"]:
    """Rotate channel pairs (i, i + half) by their position's angle; keeps the dtype and every norm."""
    first, second = wide(x).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
