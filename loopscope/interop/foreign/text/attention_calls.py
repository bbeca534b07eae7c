"""Attention inside a stranger's layer, over a cache: every call of torch's `scaled_dot_product_attention` is answered.

The layer computes queries, keys and values of the new tokens as it does; keys and values are kept in a slot, and the
attention runs over all that the new tokens may see there. What they may see is the cache's business: the layer's own
mask is for a text without a past.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from loopscope.interop.foreign.tracing.calls import ForwardStop
from loopscope.kv_cache import AbstractKVCache, Slot


class AttentionOverCache(TorchFunctionMode):
    """Answers the one attention of a layer while it runs.

    Args:
        slot: where its keys and values are kept.
        window: tokens that a token sees, itself included; None: all before it.
        ends: whether the layer's run ends once its keys and values are kept, by `ForwardStop`.
    """

    def __init__(self, kv_cache: AbstractKVCache, slot: Slot, window: int | None, ends: bool = False) -> None:
        super().__init__()
        self._kv_cache, self._slot, self._window, self._ends = kv_cache, slot, window, ends
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **settings: Any,
    ) -> Tensor:
        self.calls += 1
        self._kv_cache.keep(self._slot, key, value)
        if self._ends:
            raise ForwardStop(None)
        seen = self._kv_cache.visible(self._slot, self._window)
        mixed: Tensor = F.scaled_dot_product_attention(
            query, seen.keys, seen.values, attn_mask=seen.mask, is_causal=seen.causal, **settings
        )
        return mixed
