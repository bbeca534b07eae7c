"""Attention of an exported model, by whatever of transformers' implementations the user has chosen."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class ChosenAttention:
    """What mixes values in one layer: `config._attn_implementation`, which transformers sets.

    It takes the place of `attend` in a layer's attention. What transformers' functions ask of a module is set on it.
    """

    def __init__(self, module: Any, config: Any) -> None:
        self.module, self.config = module, config
        self.module.is_causal = True
        self.module.num_key_value_groups = self.module.heads // self.module.key_value_heads

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        dropout: float = 0.0,
        mask: Tensor | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Return softmax(query keyᵀ / √head_dim) value, [batch heads seq head_dim].

        Args:
            mask: True where a token (row) sees another; None: all before it, or everything where not `causal`.
        """
        chosen = self.config._attn_implementation
        mix = ALL_ATTENTION_FUNCTIONS.get_interface(chosen, plain_weights)
        mixed: Tensor = mix(
            self.module,
            query,
            key,
            value,
            mask,
            dropout=dropout,
            scaling=None if chosen == "sdpa" else 1 / math.sqrt(query.shape[-1]),
            is_causal=causal and mask is None,
        )[0]
        return mixed.transpose(1, 2)


def plain_weights(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    is_causal: bool = True,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """`eager`: products, a softmax in fp32, products. Returns [batch seq heads head_dim] and the weights."""
    groups = module.num_key_value_groups
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-2, -1) * scaling
    if attention_mask is None and is_causal:
        shape = query.shape[2], key.shape[2]
        attention_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
