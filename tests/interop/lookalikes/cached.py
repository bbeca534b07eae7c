"""A looped model as people write one for transformers: its cache, its `generate`, Ouro's parts."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from tests.interop.lookalikes.parts import DIM, HEADS, MLP, VOCABULARY, Norm, angles, rotate

CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What this transformers calls a cache."""


class CachedOuroConfig(PretrainedConfig):
    model_type = "cached_ouro"

    def __init__(self, total_ut_steps: int = 3, layers: int = 2, **kwargs: Any) -> None:
        self.total_ut_steps, self.layers = total_ut_steps, layers
        self.vocab_size, self.hidden_size, self.num_attention_heads = VOCABULARY, DIM, HEADS
        self.num_hidden_layers = layers * 16  # a slot per layer and loop, of as many loops as anybody runs
        super().__init__(**kwargs)


class CachedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Any, slot: int) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in self.qkv(x).chunk(3, dim=-1))
        q, k, v = (part.transpose(1, 2) for part in (rotate(q, cos, sin), rotate(k, cos, sin), v))
        first = 0
        if cache is not None:
            first = int(cache.get_seq_length(slot))
            k, v = cache.update(k, v, slot)
        new, seen = torch.arange(first, first + x.shape[1])[:, None], torch.arange(k.shape[2])
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen <= new)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class CachedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp, self.norm_1, self.norm_2 = CachedAttention(), MLP(), Norm(), Norm()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Any = None, slot: int = 0) -> Tensor:
        x = x + self.attention(self.norm_1(x), cos, sin, cache, slot)
        return x + self.mlp(self.norm_2(x))


class CachedOuroForCausalLM(PreTrainedModel, GenerationMixin):
    """Takes the cache under the name that transformers has for it: `cache` since 5.24, `past_key_values` before."""

    config_class = CachedOuroConfig
    _supports_sdpa = True

    def __init__(self, config: CachedOuroConfig) -> None:
        super().__init__(config)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(VOCABULARY, DIM)
        self.model.layers = nn.ModuleList(CachedLayer() for _ in range(config.layers))
        self.model.norm, self.model.early_exit_gate = Norm(), nn.Linear(DIM, 1)
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As torch has them."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Any = None,
        cache: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        kept = past_key_values if cache is None else cache
        if use_cache and kept is None:
            kept = DynamicCache()
        return self._run(input_ids, kept)

    def _run(self, input_ids: Tensor, kept: Any) -> CausalLMOutputWithPast:
        first = 0 if kept is None else int(kept.get_seq_length())
        x = self.model.embed_tokens(input_ids)
        table = angles(first + input_ids.shape[1])[first:][None, :, None]
        for loop in range(self.config.total_ut_steps):
            for index, layer in enumerate(self.model.layers):
                x = layer(x, table.cos(), table.sin(), kept, loop * self.config.layers + index)
            x = self.model.norm(x)
        return CausalLMOutputWithPast(logits=self.lm_head(x), **{CACHE: kept})


class ForgetfulOuroForCausalLM(CachedOuroForCausalLM):
    """Knows the old name alone and swallows every other: since 5.24 it gets no past, without an error."""

    def forward(
        self, input_ids: Tensor, past_key_values: Any = None, **kwargs: Any
    ) -> CausalLMOutputWithPast:
        return self._run(input_ids, past_key_values)
