"""Ouro."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.interop.lookalikes.parts import (
    DIM,
    MLP,
    VOCABULARY,
    Attention,
    Norm,
    angles,
)


class OuroLayer(nn.Module):
    """Sandwich inside the residual branches: the stream itself is not normed."""

    def __init__(self, returns_tuple: bool) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        self.input_layernorm, self.input_layernorm_2 = Norm(), Norm()
        self.post_attention_layernorm, self.post_attention_layernorm_2 = Norm(), Norm()
        self.attention_type = "full_attention"
        self.returns_tuple = returns_tuple

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_value: Any = None,
        use_cache: bool | None = False,
        cache_position: Any = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        current_ut: int = 0,
        **kwargs: Any,
    ) -> Any:
        assert position_embeddings is not None
        mixed = self.self_attn(self.input_layernorm(hidden_states), *position_embeddings)
        hidden_states = hidden_states + self.input_layernorm_2(mixed)
        mixed = self.mlp(self.post_attention_layernorm(hidden_states))
        hidden_states = hidden_states + self.post_attention_layernorm_2(mixed)
        return (hidden_states,) if self.returns_tuple else hidden_states


class OuroModel(nn.Module):
    def __init__(self, config: Any, returns_tuple: bool) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(VOCABULARY, DIM)
        self.layers = nn.ModuleList(OuroLayer(returns_tuple) for _ in range(2))
        self.norm = Norm()
        self.early_exit_gate = nn.Linear(DIM, 1)
        self.total_ut_steps = config.total_ut_steps

    def forward(self, input_ids: Tensor, use_cache: bool | None = None, **kwargs: Any) -> Any:
        hidden = self.embed_tokens(input_ids)
        table = angles(input_ids.shape[1])[None, :, None]
        mapping = {"full_attention": None}
        states, gates = [], []
        for current_ut in range(self.total_ut_steps):
            for layer in self.layers[: self.config.num_hidden_layers]:
                output = layer(
                    hidden,
                    attention_mask=mapping[layer.attention_type],
                    past_key_value=None,
                    use_cache=use_cache,
                    position_embeddings=(table.cos(), table.sin()),
                    current_ut=current_ut,
                )
                hidden = output[0] if isinstance(output, tuple) else output
            hidden = self.norm(hidden)
            states.append(hidden)
            gates.append(self.early_exit_gate(hidden))
        return SimpleNamespace(last_hidden_state=hidden), states, gates


class OuroForCausalLM(nn.Module):
    """Ouro's data flow, with the exit by threshold that its config switches on."""

    def __init__(self, returns_tuple: bool = False, threshold: float | None = None) -> None:
        super().__init__()
        self.config = SimpleNamespace(total_ut_steps=4, num_hidden_layers=2)
        self.model = OuroModel(self.config, returns_tuple)
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.early_exit_threshold = threshold

    def forward(
        self,
        input_ids: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        exit_at_step: int | None = None,
        **kwargs: Any,
    ) -> Any:
        outputs, states, gates = self.model(input_ids, use_cache=use_cache)
        hidden = outputs.last_hidden_state
        if exit_at_step is not None:
            hidden = states[exit_at_step]
        elif self.early_exit_threshold is not None:
            stay = torch.cumprod(1 - torch.sigmoid(torch.stack(gates)), dim=0)
            first = (1 - stay >= self.early_exit_threshold).float().argmax(dim=0)
            hidden = torch.stack(states, dim=2).gather(2, first[..., None].expand(-1, -1, 1, DIM)).squeeze(2)
        return SimpleNamespace(loss=None, logits=self.lm_head(hidden), past_key_values=None)
