"""Models that apply one stack again and again, and differ in what stands between and behind."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.interop.lookalikes.parts import DIM, MLP, VOCABULARY, Attention, Norm, angles


class PreNormLayer(nn.Module):
    """A pre-norm layer, whose stream is never normed."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2, self.attn, self.mlp = Norm(), Norm(), Attention(), MLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x), cos, sin)
        return x + self.mlp(self.n2(x))


def rotary(ids: Tensor) -> tuple[Tensor, Tensor]:
    table = angles(ids.shape[1])[None, :, None]
    return table.cos(), table.sin()


class NanbeigeForCausalLM(nn.Module):
    """Nanbeige4.2's data flow: all layers twice; the final norm between and after, or after alone by a setting."""

    def __init__(self, skip_loop_final_norm: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_loops=2, skip_loop_final_norm=skip_loop_final_norm)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(VOCABULARY, DIM)
        self.model.layers = nn.ModuleList(PreNormLayer() for _ in range(2))
        self.model.norm = Norm()
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor, use_cache: bool | None = None) -> Any:
        x: Tensor = self.model.embed_tokens(input_ids)
        for loop in range(self.config.num_loops):
            for layer in self.model.layers:
                x = layer(x, *rotary(input_ids))
            if loop == self.config.num_loops - 1 or not self.config.skip_loop_final_norm:
                x = self.model.norm(x)
        return SimpleNamespace(logits=self.lm_head(x))


class ReadoutBlindSpot(nn.Module):
    """The published class as it is: every loop's logits under a name of their own, no `logits`."""

    def __init__(self, readout: str = "rmsnorm", inter_loop_norm: bool = False) -> None:
        super().__init__()
        self.num_loops, self.readout, self.inter_loop_norm = 4, readout, inter_loop_norm
        self.token_embedding, self.position_embedding = nn.Embedding(VOCABULARY, DIM), nn.Embedding(16, DIM)
        self.layers = nn.ModuleList(PreNormLayer() for _ in range(2))
        self.decode_norm, self.loop_norm = Norm(), Norm()
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.lm_head.weight = self.token_embedding.weight

    def forward(self, input_ids: Tensor) -> dict[str, Any]:
        x = self.token_embedding(input_ids) + self.position_embedding(torch.arange(input_ids.shape[1]))
        logits, norms = [], []
        for loop in range(self.num_loops):
            for layer in self.layers:
                x = layer(x, torch.ones(1), torch.zeros(1))
            norms.append(x.norm(dim=-1).mean())
            raw = self.readout == "raw" or (self.readout == "final-only" and loop < self.num_loops - 1)
            logits.append(self.lm_head(x if raw else self.decode_norm(x)))
            x = self.loop_norm(x) if self.inter_loop_norm else x
        return {"all_logits": logits, "final_logits": logits[-1], "hidden_norms": norms}


class ElasticLooped(nn.Module):
    """elastic-looped-transformer's form: a readout module, and a head that is a product with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.max_loops = 4
        self.embed = nn.Embedding(VOCABULARY, DIM)
        self.core = nn.ModuleList(PreNormLayer() for _ in range(2))
        self.readout = Norm()

    def forward(self, input_ids: Tensor, L: int | None = None) -> Tensor:
        x = self.embed(input_ids)
        for _ in range(L or self.max_loops):
            for layer in self.core:
                x = layer(x, *rotary(input_ids))
        return F.linear(self.readout(x), self.embed.weight)


class FixedPoint(nn.Module):
    """fixed-points' form: one map of state and input, iterated; what is done after it and before the head varies."""

    def __init__(self, between: bool = False, norm: bool = True) -> None:
        super().__init__()
        self.max_iters = 4
        self.embed = nn.Embedding(VOCABULARY, DIM)
        self.f = PreNormLayer()
        self.step_norm = Norm() if between else nn.Identity()
        self.out_norm = Norm() if norm else nn.Identity()
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor, max_iters: int | None = None) -> Tensor:
        entry = self.embed(input_ids)
        z = torch.zeros_like(entry)
        for _ in range(max_iters or self.max_iters):
            z = self.step_norm(self.f(z + entry, *rotary(input_ids)))
        return self.lm_head(self.out_norm(z))


class LoopedGPT(nn.Module):
    """A nanochat fork's LoopedGPT: the whole stack, then a norm, per loop; a softcap behind the head."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(n_loops=3)
        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(VOCABULARY, DIM), "h": nn.ModuleList(PreNormLayer() for _ in range(2))}
        )
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        x = F.rms_norm(self.transformer.wte(idx), (DIM,))
        for _ in range(self.config.n_loops):
            for block in self.transformer.h:
                x = block(x, *rotary(idx))
            x = F.rms_norm(x, (DIM,))
        return 15 * torch.tanh(self.lm_head(x).float() / 15)
