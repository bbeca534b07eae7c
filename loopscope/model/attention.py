"""Causal self-attention (`model.attend`), with learned or rotary positions."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from loopscope.kv_cache import AbstractKVCache, CacheRef
from loopscope.model.config import ModelConfig
from loopscope.model.config.checks import rotated_channels
from loopscope.model.linear import apply, linear, project
from loopscope.model.rotary import angles_at, rotary_angles, rotate
from loopscope.model.value_embeddings import GATE_CHANNELS, with_values
from loopscope.ops.attention import attend
from loopscope.ops.rms_norm import RMSNorm


class CausalSelfAttention(nn.Module):
    """Attention, without biases but for `qk_bias`. The rows of `qkv` are queries, keys, values, each by head.

    Keys and values may have fewer heads than queries (Ainslie et al., "GQA", arXiv 2305.13245), queries and
    keys a norm of their own (Henry et al., arXiv 2010.04245), and every token a window it sees (Beltagy et
    al., arXiv 2004.05150). A window narrower than the text is a mask: it costs what full attention costs.
    """

    def __init__(self, config: ModelConfig, adapted: bool = False, valued: bool = False) -> None:
        super().__init__()
        self.heads, self.key_value_heads = config.heads, config.key_value_heads
        self.head_dim = config.head_dim
        self.dropout = config.dropout
        self.rotary = config.positions == "rotary"
        self.rotated = rotated_channels(config)
        self.settings = config.attention
        rows = (config.heads + 2 * config.key_value_heads) * config.head_dim
        self.qkv = linear(config.dim, rows, config, adapted)
        self.out = linear(config.dim, config.dim, config, adapted)
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
        values: Float[Tensor, "batch seq width"] | None = None,
        norm: nn.Module | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Mix the tokens of `x`; with a cache, also what its slot keeps of tokens before them.

        Args:
            values: the tokens' value embeddings, in a layer that has them.
            norm: what x passes first.
        """
        if norm is not None and values is not None:  # whose gate reads the normalised state too
            x, norm = norm(x), None
        query, key, value = self._heads(x, loop, None if cache is None else cache.kv_cache, values, norm)
        if cache is None:
            return self._among_themselves(query, key, value, loop)
        cache.kv_cache.keep(cache.slot, key, value)
        visible = cache.kv_cache.visible(cache.slot, self.settings.window)
        mixed = self._mix(query, visible.keys, visible.values, visible.mask, visible.causal)
        return apply(self.out, mixed.transpose(1, 2).flatten(2), loop)

    def remember(
        self, x: Float[Tensor, "batch seq dim"], loop: int, cache: CacheRef, values: Tensor | None = None
    ) -> None:
        """Keep the keys and values that `forward` would, and mix nothing."""
        _, key, value = self._heads(x, loop, cache.kv_cache, values)
        cache.kv_cache.keep(cache.slot, key, value)

    def _heads(
        self,
        x: Tensor,
        loop: int,
        kv_cache: AbstractKVCache | None,
        values: Tensor | None,
        norm: nn.Module | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head; the first two biased, normed and turned, the last with its embeddings."""
        rows = project(self.qkv, x, loop, norm)
        both = self.heads + self.key_value_heads
        if self.qk_bias is None and not self.rotary:
            query, key, value = self._split(rows, self.heads, self.key_value_heads, self.key_value_heads)
        else:  # queries and keys at once: half the calls
            turned, value = self._split(rows, both, self.key_value_heads)
            if self.qk_bias is not None:
                turned = turned + self.qk_bias.view(both, 1, self.head_dim).to(turned.dtype)
            if self.rotary and self.query_norm is None:
                turned = self._turn(turned, *self._angles(x, kv_cache))
            query, key = turned[:, : self.heads], turned[:, self.heads :]
        if values is not None:
            value = with_values(value, values, x, self.value_gate)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
            if self.rotary:
                angles = self._angles(x, kv_cache)
                query, key = self._turn(query, *angles), self._turn(key, *angles)
        return query, key, value

    def _split(self, rows: Float[Tensor, "batch seq width"], *heads: int) -> Iterator[Tensor]:
        """Parts of so many heads each, [batch heads seq head_dim].

        Cut before they are turned, so that the gradient is put together in one copy. Views, not einops: one token at
        a time, their 30 µs each were a tenth of a cached step.
        """
        for part in rows.split([each * self.head_dim for each in heads], dim=-1):
            yield part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _angles(self, x: Tensor, kv_cache: AbstractKVCache | None) -> tuple[Tensor, Tensor]:
        settings = self.settings
        rotated, base, scaling = self.rotated, settings.rotary_base, settings.rotary_scaling
        if kv_cache is None:
            return rotary_angles(x.shape[1], rotated, x.device, base, scaling)
        # Every layer turns by the same angles: one pair per call. The heads' axis goes between rows and tokens.
        return kv_cache.once("rotary", lambda: angles_at(kv_cache.positions[:, None], rotated, base, scaling))

    def _among_themselves(self, query: Tensor, key: Tensor, value: Tensor, loop: int) -> Tensor:
        seq, window = query.shape[2], self.settings.window
        mask = window_mask(seq, window, query.device) if window is not None and window < seq else None
        mixed = self._mix(query, key, value, mask, causal=mask is None)
        return project(self.out, mixed.transpose(1, 2).flatten(2), loop)

    def _mix(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool
    ) -> Float[Tensor, "batch heads seq head_dim"]:
        return attend(query, keys, values, self.dropout if self.training else 0.0, mask, causal)

    def _turn(
        self, x: Float[Tensor, "batch heads seq head_dim"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "batch heads seq head_dim"]:
        if self.rotated == x.shape[-1]:
            return rotate(x, cos, sin)
        return torch.cat([rotate(x[..., : self.rotated], cos, sin), x[..., self.rotated :]], dim=-1)


def window_mask(seq: int, window: int, device: torch.device) -> Bool[Tensor, "seq seq"]:
    """True where a token (row) sees another (column): itself and the `window - 1` before it."""
    place = torch.arange(seq, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)
