"""Small models with the structure of published looped models: their attribute names and data flow, our own code.

Sources that were read: the Huginn and Ouro remote codes, Parcae, LoopLM (rkstgr), LoopFormer, looped_nanochat.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, DIM, HEADS = 40, 32, 4
HEAD_DIM = DIM // HEADS


class Norm(nn.Module):
    def __init__(self, dim: int = DIM, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class MLP(nn.Module):
    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(F.silu(self.fc(x)))


def angles(length: int) -> Tensor:
    """Rotary angles [length, head_dim / 2]."""
    return torch.arange(length)[:, None] / 100.0 ** (torch.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of channels of [batch seq heads head_dim]; the table is [.. seq 1 head_dim/2]."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, extra: Tensor | None = None) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if extra is not None:
            v = v + extra.unflatten(-1, (HEADS, -1))
        mixed = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        return self.proj(mixed.transpose(1, 2).flatten(2))


# ---------------------------------------------------------------------------------------------- Huginn


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


# ---------------------------------------------------------------------------------------------- Parcae


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


# ------------------------------------------------------------------------------------------------ Ouro


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


# ------------------------------------------------------------------------------------- LoopLM (rkstgr)


class LoopLMOutput(NamedTuple):
    logits: list[Tensor]
    exit_lambdas: list[Tensor]


class LoopLMBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pre_attn_norm, self.post_attn_norm, self.pre_ffn_norm, self.post_ffn_norm = (
            Norm() for _ in range(4)
        )
        self.attn, self.ffn = Attention(), MLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.post_attn_norm(self.attn(self.pre_attn_norm(x), cos, sin))
        return x + self.post_ffn_norm(self.ffn(self.pre_ffn_norm(x)))


class LoopLM(nn.Module):
    """rkstgr/LoopLM's data flow: logits and an exit gate after every step, the gate on the raw state."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_recurrent_steps=3)
        self.embed = nn.Embedding(VOCABULARY, DIM)
        self.layers = nn.ModuleList(LoopLMBlock() for _ in range(2))
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
            logits.append(self.lm_head(self.final_norm(h)))
            lambdas.append(torch.sigmoid(self.exit_gate(h)).squeeze(-1))
        return LoopLMOutput(logits, lambdas)


# ------------------------------------------------------------------------------------------ LoopFormer


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


# ------------------------------------------------------------------------------------- looped_nanochat


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

    def transfer(self, e: Tensor, s: Tensor | None) -> Tensor:
        s = e if s is None else s
        return s if self.config.input_injection == "passthrough" else self.inject(torch.cat([e, s], dim=-1))

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, kv_cache: Any = None, num_recur: int | None = None
    ) -> Any:
        count = int(self.config.train_recur_mean) if num_recur is None else num_recur
        table = angles(idx.shape[1])[None, :, None]
        cos_sin = (table.cos(), table.sin())
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
