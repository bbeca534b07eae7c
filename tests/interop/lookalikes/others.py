"""Models without an adapter of their own: LoopLM (rkstgr), LoopFormer, looped_nanochat."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.interop.lookalikes.parts import (
    DIM,
    MLP,
    VOCABULARY,
    Attention,
    Norm,
    angles,
)


class LoopLMOutput(NamedTuple):
    logits: list[Tensor]
    exit_lambdas: list[Tensor]


class Experts(nn.Module):
    """A router's best two of four, weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(DIM, 4, bias=False), nn.ModuleList(MLP() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(dim=-1).topk(2)
        shares = torch.zeros_like(self.router(x)).scatter(-1, chosen, weights / weights.sum(-1, keepdim=True))
        return (torch.stack([expert(x) for expert in self.experts], dim=-1) * shares[..., None, :]).sum(
            dim=-1
        )


class LoopLMBlock(nn.Module):
    """Sandwiched branches; or norms after the stream (`post`), which end the block; or a mixture of experts."""

    def __init__(self, variant: str = "standard") -> None:
        super().__init__()
        self.pre_attn_norm, self.post_attn_norm, self.pre_ffn_norm, self.post_ffn_norm = (
            Norm() for _ in range(4)
        )
        self.attn, self.ffn = Attention(), Experts() if variant == "experts" else MLP()
        self.post = variant == "post-norm"

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if self.post:
            x = self.post_attn_norm(x + self.attn(x, cos, sin))
            return self.post_ffn_norm(x + self.ffn(x))
        x = x + self.post_attn_norm(self.attn(self.pre_attn_norm(x), cos, sin))
        return x + self.post_ffn_norm(self.ffn(self.pre_ffn_norm(x)))


class MoELayer(nn.Module):
    """Whole blocks as experts, each token's best two weighted; the router's gradient is cut off from the state."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(LoopLMBlock() for _ in range(3))
        self.router = nn.Linear(DIM, 3, bias=False)

    def forward(
        self, h: Tensor, cos: Tensor, sin: Tensor, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        shares = self.router(h.detach()).softmax(dim=-1)
        weights, chosen = shares.topk(2)
        outputs = torch.stack([expert(h, cos, sin, attn_mask) for expert in self.experts], dim=2)
        best = outputs.gather(2, chosen[..., None].expand(*chosen.shape, DIM))
        mixed = (best * (weights / weights.sum(dim=-1, keepdim=True))[..., None]).sum(dim=2)
        return mixed, shares.mean(dim=(0, 1)).square().sum()


class LoopLM(nn.Module):
    """rkstgr/LoopLM's data flow: logits and an exit gate after every step, the gate on the raw state."""

    def __init__(self, variant: str = "standard") -> None:
        super().__init__()
        self.config = SimpleNamespace(max_recurrent_steps=3)
        self.embed = nn.Embedding(VOCABULARY, DIM)
        whole = variant == "experts of whole blocks"
        self.layers = nn.ModuleList() if whole else nn.ModuleList(LoopLMBlock(variant) for _ in range(2))
        if whole:
            self.moe_layer = MoELayer()
        self.final_norm = Norm()
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.exit_gate = nn.Linear(DIM, 1)
        self.lm_head.weight = self.embed.weight

    def forward(
        self,
        input_ids: Tensor,
        num_steps: int | None = None,
        attention_mask: Tensor | None = None,
        detach_between_steps: bool = False,
    ) -> LoopLMOutput:
        table = angles(input_ids.shape[1])[None, :, None]
        h = self.embed(input_ids)
        logits, lambdas = [], []
        for _ in range(num_steps or self.config.max_recurrent_steps):
            h = h.detach() if detach_between_steps else h
            for layer in self.layers:
                h = layer(h, table.cos(), table.sin(), attention_mask)
            if hasattr(self, "moe_layer"):
                h, _ = self.moe_layer(h, table.cos(), table.sin(), attention_mask)
            logits.append(self.lm_head(self.final_norm(h)))
            lambdas.append(torch.sigmoid(self.exit_gate(h)).squeeze(-1))
        return LoopLMOutput(logits, lambdas)


class LoopFormerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (nn.RMSNorm(DIM, elementwise_affine=False) for _ in range(2))
        self.attn, self.mlp = Attention(), MLP()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(DIM, 4 * DIM))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gate_a, gate_m, scale_a, scale_m = self.adaLN_modulation(c)[:, None].chunk(4, dim=-1)
        one = torch.ones(1)
        x = x + gate_a * self.attn(self.norm_1(x) * (1 + scale_a), one, 0 * one)
        return x + gate_m * self.mlp(self.norm_2(x) * (1 + scale_m))


class SharedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(LoopFormerBlock() for _ in range(2))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, c)
        return x


class LoopFormer(nn.Module):
    """LoopFormer's data flow: a time and a step size condition every loop; one position's logits in inference."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, DIM),
                "wpe": nn.Embedding(16, DIM),
                "drop": nn.Dropout(0.1),
                "h": SharedBlock(),
                "norm_f": nn.RMSNorm(DIM),
            }
        )
        self.time_embedder, self.dt_embedder = nn.Linear(1, DIM), nn.Linear(1, DIM)
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, idx: Tensor, targets: Tensor | None = None, steps: Any = (0.25,) * 4) -> Any:
        positions = torch.arange(idx.shape[1], device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(positions))
        time = torch.zeros(x.shape[0], dtype=x.dtype, device=x.device)
        for dt in steps:
            c = self.time_embedder(time[:, None]) + self.dt_embedder(torch.ones_like(time)[:, None] * dt)
            x = self.transformer.h(x, c)
            time = time + dt
        x = self.transformer.norm_f(x)
        if targets is None:
            return self.lm_head(x[:, [-1], :]), None, x
        logits = self.lm_head(x)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1), x


class NanoBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2, self.n3, self.n4 = Norm(), Norm(), Norm(), Norm()
        self.attn, self.mlp = Attention(), MLP()

    def forward(
        self,
        x: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        window_size: Any,
        kv_cache: Any,
        layer_idx: Any = None,
    ) -> Tensor:
        cos, sin = cos_sin
        x = self.n2(x + self.attn(self.n1(x), cos, sin))
        return self.n4(x + self.mlp(self.n3(x)))


class LoopedNanochat(nn.Module):
    """looped_nanochat's data flow: injection before, a norm after the block, a detach, padding and a softcap."""

    def __init__(self, injection: str = "inject_init_prelude", bptt_k: int | None = 4) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            train_recur_mean=4.0,
            bptt_k=bptt_k,
            input_injection=injection,
            logit_softcap=15.0,
            vocab_size=VOCABULARY,
        )
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(64, DIM),
                "prelude": nn.ModuleList(NanoBlock() for _ in range(1)),
                "recur": nn.ModuleList(NanoBlock() for _ in range(2)),
                "coda": nn.ModuleList(NanoBlock() for _ in range(1)),
            }
        )
        if injection != "passthrough":
            self.inject = nn.Linear(2 * DIM, DIM, bias=False)
        self.norm_emb, self.norm_recur, self.norm_final = Norm(), Norm(), Norm()
        self.lm_head = nn.Linear(DIM, 64, bias=False)
        # The forward refuses tables in another type than it was made with, as theirs does.
        table = angles(16)[None, :, None]
        self.register_buffer("cos", table.cos().bfloat16(), persistent=False)
        self.register_buffer("sin", table.sin().bfloat16(), persistent=False)

    def transfer(self, e: Tensor, s: Tensor | None) -> Tensor:
        s = e if s is None else s
        return s if self.config.input_injection == "passthrough" else self.inject(torch.cat([e, s], dim=-1))

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, kv_cache: Any = None, num_recur: int | None = None
    ) -> Any:
        count = int(self.config.train_recur_mean) if num_recur is None else num_recur
        assert self.cos.dtype == self.sin.dtype == torch.bfloat16, "rotary tables must be in bfloat16"
        cos_sin = (self.cos[:, : idx.shape[1]], self.sin[:, : idx.shape[1]])
        x = self.norm_emb(self.transformer.wte(idx))
        for block in self.transformer.prelude:
            x = block(x, cos_sin, (16, 0), kv_cache, None)
        e, s = x, None
        for i in range(count):
            u = self.transfer(e, s)
            for block in self.transformer.recur:
                u = block(u, cos_sin, (16, 0), kv_cache, None)
            s = self.norm_recur(u)
            if self.config.bptt_k is not None and i < count - self.config.bptt_k:
                s = s.detach()
        x = s
        for block in self.transformer.coda:
            x = block(x, cos_sin, (16, 0), kv_cache, None)
        logits = self.lm_head(self.norm_final(x))[..., : self.config.vocab_size].float()
        return self.config.logit_softcap * torch.tanh(logits / self.config.logit_softcap), s
