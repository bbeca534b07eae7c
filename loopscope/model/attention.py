"""Causal self-attention, with learned or rotary positions."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from loopscope.kv_cache import AbstractKVCache, CacheRef, Visible
from loopscope.model.config import ModelConfig
from loopscope.model.config.checks import rotated_channels
from loopscope.model.linear import build_linear, in_loop
from loopscope.model.rotary import RotaryTurns, rotate
from loopscope.model.value_embeddings import GATE_CHANNELS, add_value_embeddings
from loopscope.ops.attention import attention
from loopscope.ops.linear import linear
from loopscope.ops.rms_norm import RMSNorm


class CausalSelfAttention(nn.Module):
    """Attention. The rows of `qkv` are queries, keys, values, each by head.

    Keys and values may have fewer heads than queries (Ainslie et al., "GQA", arXiv 2305.13245), queries and
    keys a norm of their own (Henry et al., arXiv 2010.04245), and every token a window it sees (Beltagy et
    al., arXiv 2004.05150). A window narrower than the text is a mask: it costs what full attention costs.

    Attributes:
        attend: what mixes values, called as `ops.attention.attention`; in an exported model the user's choice.
    """

    attend: Callable[..., Tensor]

    def __init__(self, config: ModelConfig, adapted: bool = False, valued: bool = False) -> None:
        super().__init__()
        self.heads, self.key_value_heads = config.heads, config.key_value_heads
        self.head_dim = config.head_dim
        self.dropout = config.dropout
        self.rotary = config.positions == "rotary"
        self.rotated = rotated_channels(config)
        self.settings = config.attention
        self.turns = RotaryTurns.of(config.attention, self.rotated)
        self.attend = attention
        rows = (config.heads + 2 * config.key_value_heads) * config.head_dim
        self.qkv = build_linear(config.dim, rows, config, adapted, self.settings.bias)
        self.out = build_linear(
            config.heads * config.head_dim, config.dim, config, adapted, self.settings.bias
        )
        norms = config.attention.qk_norm
        self.query_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if norms else None
        self.key_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if norms else None
        rows = config.heads + config.key_value_heads
        self.qk_bias = nn.Parameter(torch.zeros(rows * config.head_dim)) if self.settings.qk_bias else None
        gated = valued and self.settings.value_embeddings == "gated"
        self.value_gate = (
            nn.Linear(min(GATE_CHANNELS, config.dim), config.key_value_heads, bias=False) if gated else None
        )

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        loop: int = 1,
        cache: CacheRef | None = None,
        value_embeddings: Float[Tensor, "batch seq width"] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Return what the tokens of `x` gather from each other; with a cache, also from the tokens before them.

        Args:
            loop: which of its matrices' adapters to use.
            cache: where keys and values are kept, in generation.
            value_embeddings: the tokens' value embeddings, in a layer that has them.
        """
        query, key, value = self._heads(x, loop, None if cache is None else cache.kv_cache, value_embeddings)
        if cache is None:
            visible = self._own(key, value)
        else:
            visible = cache.kv_cache.extend(cache.slot, key, value, self.settings.window)
        dropout = self.dropout if self.training else 0.0
        mixed = self.attend(query, visible.keys, visible.values, dropout, visible.mask, visible.causal)
        return linear(mixed.transpose(1, 2).flatten(2), in_loop(self.out, loop))

    def remember(
        self,
        x: Float[Tensor, "batch seq dim"],
        loop: int,
        cache: CacheRef,
        value_embeddings: Float[Tensor, "batch seq width"] | None = None,
    ) -> None:
        """Keep the keys and values that `forward` would, and mix nothing."""
        _, key, value = self._heads(x, loop, cache.kv_cache, value_embeddings)
        cache.kv_cache.keep(cache.slot, key, value)

    def _heads(
        self, x: Tensor, loop: int, kv_cache: AbstractKVCache | None, value_embeddings: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys, values by head: the first two biased, normed, rotated, the last with embeddings."""
        rows = linear(x, in_loop(self.qkv, loop))
        both = self.heads + self.key_value_heads
        if self.qk_bias is None and not self.rotary:
            query, key, value = self._split(rows, self.heads, self.key_value_heads, self.key_value_heads)
        else:  # queries and keys at once: half the calls
            query_key, value = self._split(rows, both, self.key_value_heads)
            if self.qk_bias is not None:
                query_key = query_key + self.qk_bias.view(both, 1, self.head_dim).to(query_key.dtype)
            if self.rotary and self.query_norm is None:
                query_key = self._rotate(query_key, *self._angles(x, kv_cache))
            query, key = query_key[:, : self.heads], query_key[:, self.heads :]
        if value_embeddings is not None:
            value = add_value_embeddings(value, value_embeddings, x, self.value_gate)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
            if self.rotary:
                angles = self._angles(x, kv_cache)
                query, key = self._rotate(query, *angles), self._rotate(key, *angles)
        return query, key, value

    def _split(self, rows: Float[Tensor, "batch seq width"], *heads: int) -> Iterator[Tensor]:
        """Yield parts of so many heads each, [batch heads seq head_dim].

        Cut before axes are exchanged, so that the gradient is put together in one copy. Views, not einops: one token at
        a time, their 30 µs each were a tenth of a cached step.
        """
        for part in rows.split([each * self.head_dim for each in heads], dim=-1):
            yield part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _angles(self, x: Tensor, kv_cache: AbstractKVCache | None) -> tuple[Tensor, Tensor]:
        if kv_cache is None:
            return self.turns.angles(torch.arange(x.shape[1], device=x.device))

        # Every layer rotates by the same angles: one pair per call (and device, where layers are on several). The
        # heads' axis goes between rows and tokens.
        def angles() -> tuple[Tensor, Tensor]:
            return self.turns.angles(kv_cache.positions[:, None].to(x.device))

        return kv_cache.once(f"rotary {x.device}", angles)

    def _own(self, key: Tensor, value: Tensor) -> Visible:
        """Return what tokens see where nothing came before them: each itself and all before it, within the window."""
        seq, window = key.shape[2], self.settings.window
        mask = None
        if window is not None and window < seq:
            mask = window_mask(torch.arange(seq, device=key.device), window)
        return Visible(key, value, mask, causal=mask is None)

    def _rotate(
        self, x: Float[Tensor, "batch heads seq head_dim"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "batch heads seq head_dim"]:
        if self.rotated == x.shape[-1]:
            return rotate(x, cos, sin)
        return torch.cat([rotate(x[..., : self.rotated], cos, sin), x[..., self.rotated :]], dim=-1)


def window_mask(place: Int[Tensor, " seq"], window: int) -> Bool[Tensor, "seq seq"]:
    """Return True where a token (row) sees another (column): itself and the `window - 1` before it."""
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)
