"""Huginn (recurrent-pretraining)."""

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


class RavenBlock(nn.Module):
    """Sandwich: a norm before and after each half, the last of them at the very end."""

    def __init__(self, returns_tuple: bool) -> None:
        super().__init__()
        self.norm_1, self.norm_2, self.norm_3, self.norm_4 = Norm(), Norm(), Norm(), Norm()
        self.attn, self.mlp = Attention(), MLP()
        self.returns_tuple = returns_tuple

    def forward(
        self, x: Tensor, freqs_cis: Tensor, step_idx: Tensor, mask: Any = None, past_key_values: Any = None
    ) -> Any:
        cos, sin = freqs_cis.unbind(-1)
        x = self.norm_2(self.attn(self.norm_1(x), cos, sin) + x)
        x = self.norm_4(self.mlp(self.norm_3(x)) + x)
        return (x, None) if self.returns_tuple else x


class RavenForCausalLM(nn.Module):
    """Huginn's data flow. `returns_tuple`: the first release's blocks gave (state, attention map)."""

    def __init__(self, returns_tuple: bool = False, recurrence: int = 3) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            mean_recurrence=recurrence,
            mean_backprop_depth=2,
            n_embd=DIM,
            init_values={"std": 0.4, "embed_scale": 2.0},
            test_time_noise=0,
        )
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, DIM),
                "prelude": nn.ModuleList(RavenBlock(returns_tuple) for _ in range(2)),
                "adapter": nn.Linear(2 * DIM, DIM, bias=True),
                "core_block": nn.ModuleList(RavenBlock(returns_tuple) for _ in range(3)),
                "coda": nn.ModuleList(RavenBlock(returns_tuple) for _ in range(2)),
                "ln_f": Norm(),
            }
        )
        self.emb_scale = 2.0
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        table = angles(64)[None, :, None]
        self.register_buffer("freqs_cis", torch.stack([table.cos(), table.sin()], dim=-1))

    def forward(
        self,
        input_ids: Tensor,
        input_embeds: Tensor | None = None,
        input_states: Tensor | None = None,
        labels: Tensor | None = None,
        num_steps: Any = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        init_scale: float = 1.0,
        **kwargs: Any,
    ) -> Any:
        freqs = self.freqs_cis[:, : input_ids.shape[1]]
        embeds = self.transformer.wte(input_ids) * self.emb_scale
        index = torch.tensor(-1)
        for block in self.transformer.prelude:
            index = index + 1
            embeds = self.first(block(embeds, freqs, index, None, past_key_values))
        x = self.initialize_state(embeds, init_scale) if input_states is None else input_states.clone()
        if num_steps is None:
            without, within = torch.as_tensor(self.config.mean_recurrence), torch.as_tensor(0)
        elif hasattr(num_steps, "__len__") and len(num_steps) > 1:
            without, within = num_steps
        else:
            without, within = num_steps, torch.tensor(0)
        with torch.no_grad():
            for _ in range(without):
                x, index = self.core_block_forward(x, embeds, freqs, past_key_values, index)
        for _ in range(within):
            x, index = self.core_block_forward(x, embeds, freqs, past_key_values, index)
        x = self.transformer.ln_f(x)
        latents = x.clone().detach()
        index = torch.tensor(0)
        for block in self.transformer.coda:
            index = index - 1
            x = self.first(block(x, freqs, index, None, past_key_values))
        logits = self.lm_head(self.transformer.ln_f(x)).float()
        return SimpleNamespace(loss=torch.as_tensor(0.0), logits=logits, latent_states=latents)

    @staticmethod
    def first(output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    def core_block_forward(
        self, x: Tensor, embeds: Tensor, freqs: Tensor, cache: Any, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = self.transformer.adapter(torch.cat([x, embeds], dim=-1))
        for block in self.transformer.core_block:
            index = index + 1
            x = self.first(block(x, freqs, index, None, cache))
        return x, index

    def initialize_state(self, embeds: Tensor, scale: float) -> Tensor:
        std = self.config.init_values["std"] * scale
        return (
            nn.init.trunc_normal_(torch.empty_like(embeds), std=std, a=-3 * std, b=3 * std) * self.emb_scale
        )
