"""Models that hand more than H_k from loop to loop: keys and values, tokens that left, a second latent."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.interop.lookalikes.parts import DIM, HEADS, MLP, VOCABULARY, Norm, rotate
from tests.interop.lookalikes.shared_stacks import PreNormLayer, rotary


class LoopCoderLayer(nn.Module):
    """Later loops mix attention to the first loop's keys and values in by a gate per head."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.input_layernorm, self.post_attention_layernorm, self.mlp = Norm(), Norm(), MLP()
        self.q_proj, self.kv_proj, self.o_proj = (
            nn.Linear(DIM, DIM, bias=False),
            nn.Linear(DIM, 2 * DIM, bias=False),
            nn.Linear(DIM, DIM, bias=False),
        )
        self.gate = nn.Linear(DIM, HEADS)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        loop: int = 0,
        past_key_values: dict[int, tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        x = self.input_layernorm(hidden_states)
        key, value = (part.unflatten(-1, (HEADS, -1)) for part in self.kv_proj(x).chunk(2, dim=-1))
        query = rotate(self.q_proj(x).unflatten(-1, (HEADS, -1)), *position_embeddings)
        own = rotate(key, *position_embeddings), value
        mixed = self.attend(query, *own)
        if loop == 0 and past_key_values is not None:
            past_key_values[self.index] = own
        elif loop > 0:
            assert past_key_values is not None
            gate = torch.sigmoid(self.gate(x))[..., None]
            mixed = gate * self.attend(query, *past_key_values[self.index]) + (1 - gate) * mixed
        hidden_states = hidden_states + self.o_proj(mixed.flatten(2))
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))

    @staticmethod
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = (part.transpose(1, 2) for part in (query, key, value))
        return F.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2)


class LoopCoderForCausalLM(nn.Module):
    """IQuest-Coder Loop's and LoopCoder-V2's data flow: the model makes the cache that loop 2 reads."""

    def __init__(self, loops: int = 2) -> None:
        super().__init__()
        self.config = SimpleNamespace(loop_num=loops)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(VOCABULARY, DIM)
        self.model.layers = nn.ModuleList(LoopCoderLayer(index) for index in range(2))
        self.model.norm = Norm()
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor, use_cache: bool | None = None) -> Any:
        cache: dict[int, tuple[Tensor, Tensor]] | None = None if use_cache is False else {}
        x: Tensor = self.model.embed_tokens(input_ids)
        for loop in range(self.config.loop_num):
            for layer in self.model.layers:
                x = layer(x, rotary(input_ids), loop=loop, past_key_values=cache)
        return SimpleNamespace(logits=self.lm_head(self.model.norm(x)), past_key_values=cache)


class MixtureOfRecursions(nn.Module):
    """mixture_of_recursions' token choice: a router gives every token its depth; one that left keeps its state."""

    def __init__(self) -> None:
        super().__init__()
        self.num_recursions = 3
        self.embed_tokens = nn.Embedding(VOCABULARY, DIM)
        self.shared_blocks = nn.ModuleList(PreNormLayer() for _ in range(2))
        self.router = nn.Linear(DIM, 3, bias=False)
        self.norm = Norm()
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Any:
        x = self.embed_tokens(input_ids)
        depth = self.router(x).argmax(dim=-1, keepdim=True)
        for recursion in range(self.num_recursions):
            h = x
            for block in self.shared_blocks:
                h = block(h, *rotary(input_ids))
            x = torch.where(depth >= recursion, h, x)
        return SimpleNamespace(logits=self.lm_head(self.norm(x)))


@dataclass
class Latents:
    z_H: Tensor
    z_L: Tensor


class MixerLayer(nn.Module):
    """Post-norm, and over positions: the sequence has one length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.tokens, self.mlp = nn.Linear(length, length, bias=False), MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = F.rms_norm(x + self.tokens(x.transpose(1, 2)).transpose(1, 2), (DIM,))
        return F.rms_norm(x + self.mlp(x), (DIM,))


class Level(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MixerLayer(length) for _ in range(2))

    def forward(self, hidden_states: Tensor, input_injection: Tensor) -> Tensor:
        x = hidden_states + input_injection
        for layer in self.layers:
            x = layer(x)
        return x


class TinyRecursiveInner(nn.Module):
    """States of a puzzle's positions and the tokens'; all cycles but the last without a gradient."""

    def __init__(self, length: int, puzzle_positions: int, own_high: bool) -> None:
        super().__init__()
        self.config = SimpleNamespace(H_cycles=3, L_cycles=2, seq_len=length)
        self.puzzle_emb_len = puzzle_positions
        self.embed_tokens = nn.Embedding(VOCABULARY, DIM)
        self.puzzles = nn.Parameter(torch.randn(4, puzzle_positions * DIM))
        self.L_level = Level(length + puzzle_positions)
        if own_high:
            self.H_level = Level(length + puzzle_positions)
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.q_head = nn.Linear(DIM, 2)
        self.register_buffer("H_init", torch.randn(DIM))
        self.register_buffer("L_init", torch.randn(DIM))

    def _input_embeddings(self, inputs: Tensor, puzzle_identifiers: Tensor) -> Tensor:
        puzzle = self.puzzles[puzzle_identifiers].unflatten(-1, (self.puzzle_emb_len, DIM))
        return DIM**0.5 * torch.cat([puzzle, self.embed_tokens(inputs)], dim=1)

    def forward(self, carry: Latents, batch: dict[str, Tensor]) -> tuple[Latents, Tensor, Tensor]:
        entry = self._input_embeddings(batch["inputs"], batch["puzzle_identifiers"])
        high, low = carry.z_H, carry.z_L
        high_level = getattr(self, "H_level", self.L_level)
        for cycle in range(self.config.H_cycles):
            with torch.set_grad_enabled(torch.is_grad_enabled() and cycle == self.config.H_cycles - 1):
                for _ in range(self.config.L_cycles):
                    low = self.L_level(low, high + entry)
                high = high_level(high, low)
        logits = self.lm_head(high)[:, self.puzzle_emb_len :]
        return Latents(high.detach(), low.detach()), logits, self.q_head(high[:, 0])


class TinyRecursive(nn.Module):
    """TinyRecursiveModels' data flow: (carry, batch) in and out, one length, puzzle embeddings before the tokens.

    With a high stack of its own, HRM's.
    """

    def __init__(self, length: int = 12, puzzle_positions: int = 2, own_high: bool = False) -> None:
        super().__init__()
        self.inner = TinyRecursiveInner(length, puzzle_positions, own_high)

    def initial_carry(self, batch: dict[str, Tensor]) -> Latents:
        rows, length = batch["inputs"].shape
        shape = (rows, length + self.inner.puzzle_emb_len, DIM)
        return Latents(torch.empty(shape), torch.empty(shape))

    def forward(self, carry: Latents, batch: dict[str, Tensor]) -> tuple[Latents, dict[str, Tensor]]:
        fresh = torch.ones(len(carry.z_H), 1, 1, dtype=torch.bool)
        begun = Latents(
            torch.where(fresh, self.inner.H_init, carry.z_H), torch.where(fresh, self.inner.L_init, carry.z_L)
        )
        after, logits, q = self.inner(begun, batch)
        return after, {"logits": logits, "q_halt_logits": q[..., 0], "q_continue_logits": q[..., 1]}
