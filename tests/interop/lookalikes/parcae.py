"""Parcae."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.interop.lookalikes.parts import (
    DIM,
    HEADS,
    MLP,
    VOCABULARY,
    Attention,
    Norm,
    angles,
)


class ParcaeBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = Norm(dim), Norm(dim)
        self.attn, self.mlp = Attention(dim), MLP(dim)

    def forward(
        self, x: Tensor, freqs_cis: Tensor, mask: Any = None, ve: Tensor | None = None, **_: Any
    ) -> Tensor:
        cos, sin = freqs_cis.unbind(-1)
        width = x.shape[-1] // HEADS // 2
        x = self.attn(self.norm_1(x), cos[..., :width], sin[..., :width], ve) + x
        return self.mlp(self.norm_2(x)) + x


class DiagonalInjection(nn.Module):
    def __init__(self, state: int, width: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(state))
        self.dt_bias = nn.Parameter(torch.full((state,), 0.8047).expm1().log())  # decay of sqrt(1/5)
        self.B = nn.Parameter(torch.eye(state, width))

    def forward(self, x_t: Tensor, e: Tensor) -> Tensor:
        dt = F.softplus(self.dt_bias)
        return x_t * torch.exp(-dt * self.A_log.exp()) + dt * (e @ self.B.T)


class LinearInjection(nn.Module):
    def __init__(self, state: int, width: int) -> None:
        super().__init__()
        self.adapter = nn.Linear(state + width, state, bias=False)

    def forward(self, x: Tensor, input_embeds: Tensor) -> Tensor:
        return self.adapter(torch.cat([x, input_embeds], dim=-1))


class Parcae(nn.Module):
    """Parcae's data flow: sampled depths unless `num_steps_pair` is given, logits only when asked for."""

    def __init__(
        self, injection: str = "diagonal", softcap: float | None = None, state_dim: int = DIM
    ) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            mean_recurrence=4,
            mean_backprop_depth=2,
            prelude_norm=True,
            state_init="normal",
            recurrent_embedding_dimension=state_dim,
            init=SimpleNamespace(logit_scale=0.7, embedding_scale=1.5),
            logit_softcap=softcap,
            n_layers_in_prelude=2,
            n_layers_in_recurrent_block=2,
        )
        inject = DiagonalInjection if injection == "diagonal" else LinearInjection
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, DIM),
                "prelude": nn.ModuleList(ParcaeBlock(DIM) for _ in range(2)),
                "adapter": inject(state_dim, DIM),
                "core_block": nn.ModuleList(ParcaeBlock(state_dim) for _ in range(2)),
                "C": nn.Linear(state_dim, DIM, bias=False),
                "coda": nn.ModuleList(ParcaeBlock(DIM) for _ in range(2)),
                "ln_f": Norm(),
                "ln_prelude": Norm(),
            }
        )
        self.value_embeds = nn.ModuleDict(
            {str(i): nn.Embedding(VOCABULARY, state_dim if i == 3 else DIM) for i in (1, 3, 5)}
        )
        self.emb_scale = self.config.init.embedding_scale
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        table = angles(64)[None, :, None]
        self.register_buffer("freqs_cis", torch.stack([table.cos(), table.sin()], dim=-1))
        self._current_input_ids: Tensor | None = None

    def values(self, index: int, input_ids: Tensor) -> Tensor | None:
        key = str(index)
        return self.value_embeds[key](input_ids) if key in self.value_embeds else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Any = None,
        position_ids: Any = None,
        labels: Any = None,
        return_logits: bool = False,
        num_steps_pair: Tensor | None = None,
    ) -> dict[str, Tensor | None]:
        freqs = self.freqs_cis[:, : input_ids.shape[1]]
        embeds = self.transformer.wte(input_ids) * self.emb_scale
        self._current_input_ids = input_ids
        for i, block in enumerate(self.transformer.prelude):
            embeds = block(embeds, freqs, attention_mask, ve=self.values(i, input_ids))
        x = self.iterate_forward(self.transformer.ln_prelude(embeds), freqs, num_steps_pair)
        x = self.transformer.C(x)
        for i, block in enumerate(self.transformer.coda):
            x = block(x, freqs, attention_mask, ve=self.values(4 + i, input_ids))
        logits = self.lm_head(self.transformer.ln_f(x)).float() * self.config.init.logit_scale
        if self.config.logit_softcap is not None:
            logits = self.config.logit_softcap * torch.tanh(logits / self.config.logit_softcap)
        loss = torch.as_tensor(0.0)
        return {"loss": loss, "logits": logits if return_logits else None, "log_ppl": loss}

    def iterate_forward(self, embeds: Tensor, freqs: Tensor, num_steps_pair: Tensor | None) -> Tensor:
        x = self.initialize_state(embeds)
        if num_steps_pair is None:
            num_steps_pair = torch.poisson(torch.tensor([4.0, 2.0])).long() + 1
        without, within = num_steps_pair
        with torch.no_grad():
            for _ in range(int(without)):
                x = self.core_block_forward(x, embeds, freqs)
        for _ in range(int(within)):
            x = self.core_block_forward(x, embeds, freqs)
        return x

    def initialize_state(self, embeds: Tensor) -> Tensor:
        shape = (*embeds.shape[:-1], self.config.recurrent_embedding_dimension)
        make = torch.zeros if self.config.state_init == "zero" else torch.randn
        return make(shape, device=embeds.device, dtype=embeds.dtype)

    def core_block_forward(self, x: Tensor, embeds: Tensor, freqs: Tensor) -> Tensor:
        x = self.transformer.adapter(x, embeds)
        assert self._current_input_ids is not None
        for i, block in enumerate(self.transformer.core_block):
            x = block(x, freqs, None, ve=self.values(2 + i, self._current_input_ids))
        return x
