"""The looped transformer: the five parts of the waist, filled from a `ModelConfig`.

embed    tokens, positions, prelude layers: the input e, which is also H_0 unless `start` says otherwise
core     injection of e, loop embedding, the shared layers: H_k
carry    the steps between H_k and the next loop
readout  (the readout's norm, coda layers, in a model that has them) and the readout itself
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loopscope.hooks import has_hooks
from loopscope.kv_cache import AbstractKVCache, CacheRef, Part, Slot
from loopscope.model.carries import AbstractCarry, DecayCarry, build_carries, share_norm
from loopscope.model.config import ModelConfig
from loopscope.model.init import initialise
from loopscope.model.initial_state import build_start
from loopscope.model.injections import build_injection
from loopscope.model.layer import Layer
from loopscope.model.loop_embedding import build_loop_embedding
from loopscope.model.readouts import build_readout
from loopscope.model.token_layer import run_cached
from loopscope.model.value_embeddings import ValueEmbeddings
from loopscope.ops.rms_norm import RMSNorm
from loopscope.ops.wide_sum import summed_wide
from loopscope.recurrence import AbstractLoopedLM, CarryStep, LoopContext


def call_layer(layer: nn.Module, *inputs: Any) -> Tensor:
    """The plain way to run a layer."""
    return layer(*inputs)


class LoopedTransformer(AbstractLoopedLM):
    """One stack of layers, applied `config.loops` times, between layers of their own where the config has any.

    Attributes:
        config: the settings it was built from.
        gradient_checkpointing: what the backward pass computes again instead of keeping, at about a third more
            arithmetic. `layer`: memory of one layer's activations plus loops × layers hidden states; `loop`: of
            one loop's activations plus loops hidden states (layers that run once go one at a time).
        run_layer: how a layer is called; training may put a compiled call in its place.
    """

    run_layer: Callable[..., Tensor]
    traceable = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.loops
        self.readout_name = config.readout.kind
        self.depth_conditioned = config.loop_embedding == "modulation"
        self.remembers = _remembers(config)
        self.positions_limit = config.sequence if config.positions == "learned" else None
        self.gradient_checkpointing: Literal["none", "layer", "loop"] = "none"
        self.run_layer = call_layer
        self.token_embedding = nn.Embedding(config.vocabulary, config.dim)
        self.position_embedding = (
            nn.Embedding(config.sequence, config.dim) if config.positions == "learned" else None
        )
        self.input_dropout = nn.Dropout(config.dropout)
        valued = iter(config.value_layers)
        self.prelude = nn.ModuleList(Layer(config, False, next(valued)) for _ in range(config.prelude))
        self.entry_norm = RMSNorm(config.dim, eps=config.norm_eps) if config.injection.norm else None
        self.injection = build_injection(config)
        self.loop_embedding = build_loop_embedding(config)
        self.layers = nn.ModuleList(Layer(config, True, next(valued)) for _ in range(config.layers))
        self.carries = build_carries(config)
        self.coda = nn.ModuleList(Layer(config, False, next(valued)) for _ in range(config.coda))
        self.value_embeddings = ValueEmbeddings(config) if any(config.value_layers) else None
        self.coda_matrix = nn.Parameter(torch.eye(config.dim)) if config.coda_matrix else None
        self.reading = build_readout(config)
        share_norm(self.carries, self.reading)
        self.unembedding = None if config.tied else nn.Linear(config.dim, config.vocabulary, bias=False)
        self.gate = nn.Linear(config.dim, 1) if config.exit_gate else None
        self.start = build_start(config)
        initialise(self, config)

    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        """The input e. Where `start` is not `embedding`, loop 1 replaces it by H_0 and injects it."""
        return self.embed_vectors(self.token_embedding(input_ids), input_ids, None)

    def embed_after(
        self, input_ids: Int[Tensor, "batch seq"], kv_cache: AbstractKVCache
    ) -> Float[Tensor, "batch seq dim"]:
        return self.embed_vectors(self.token_embedding(input_ids), input_ids, kv_cache)

    def embed_vectors(
        self,
        vectors: Float[Tensor, "batch seq dim"],
        input_ids: Int[Tensor, "batch seq"],
        kv_cache: AbstractKVCache | None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Do what `embed` and `embed_after` do, of vectors in the place of the tokens' embeddings.

        Args:
            input_ids: what value embeddings are looked up by; without any it does not matter what it holds.
        """
        hidden = vectors * self.config.dim**0.5 if self.config.embedding_gain == "sqrt-dim" else vectors
        if self.position_embedding is not None and kv_cache is not None:
            hidden = hidden + self._position_vectors(kv_cache.positions)
        elif self.position_embedding is not None:
            seq = vectors.shape[1]
            if seq > self.config.sequence:
                raise ValueError(
                    f"input_ids has {seq} tokens; this model has {self.config.sequence} learned positions. "
                    "Shorten the input, or train with positions: rotary, which have no such limit"
                )
            hidden = hidden + self._position_vectors(torch.arange(seq, device=vectors.device), slice(seq))
        hidden = self.input_dropout(hidden)
        for place, layer in enumerate(self.prelude):
            value_embeddings = self._value_embeddings(place, input_ids)
            hidden = self._run(layer, hidden, 1, None, kv_cache, Slot("embed", 1, place), value_embeddings)
        return hidden if self.entry_norm is None else self.entry_norm(hidden)

    def _position_vectors(self, places: Tensor, part: slice | None = None) -> Tensor:
        """Vectors of positions; `part` says the same where they are one stretch."""
        table = self.position_embedding
        assert table is not None
        if has_hooks(table):  # somebody listens, or brings the weights in when it is called
            return table(places)
        return table.weight[places if part is None else part]

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        if self.gradient_checkpointing == "loop" and torch.is_grad_enabled():
            return checkpoint(self._loop, hidden, loop, context, use_reentrant=False)
        return self._loop(hidden, loop, context)

    def _loop(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        hidden, condition = self._before_layers(hidden, loop, context)
        for index, layer in enumerate(self.layers):
            value_embeddings = self._value_embeddings(self.config.prelude + index, context.input_ids)
            hidden = self._run(
                layer, hidden, loop, condition, context.kv_cache, Slot("core", loop, index), value_embeddings
            )
        return hidden

    def remember(self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext) -> None:
        assert context.kv_cache is not None, "only generation asks"
        hidden, condition = self._before_layers(hidden, loop, context)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            value_embeddings = self._value_embeddings(self.config.prelude + index, context.input_ids)
            layer.remember(
                hidden,
                loop,
                condition,
                CacheRef(context.kv_cache, Slot("core", loop, index)),
                value_embeddings,
            )

    def _before_layers(self, hidden: Tensor, loop: int, context: LoopContext) -> tuple[Tensor, Tensor | None]:
        """What the first shared layer receives, and what modulates all of them."""
        if loop == 1:
            hidden = self._start(hidden, context.kv_cache)
        if self.injection is not None:
            decay = self._decay()
            hidden = self.injection(hidden, context.embedded, None if decay is None else decay.step())
        if self.loop_embedding is None:
            return hidden, None
        vector = self.loop_embedding(loop, context.loops)
        return (hidden + vector, None) if self.loop_embedding.added else (hidden, vector)

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        for step in self.carries.values():
            hidden = step(hidden, loop)
        return hidden

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        if self.config.coda_norm:
            norm = self.reading.norm
            assert isinstance(norm, nn.Module), "the config checks that the readout has a norm"
            hidden = norm(hidden)
        if self.coda_matrix is not None:
            hidden = F.linear(hidden, self.coda_matrix)
        for index, layer in enumerate(self.coda):
            value_embeddings = self._value_embeddings(
                self.config.prelude + self.config.layers + index, context.input_ids
            )
            hidden = self._run(
                layer, hidden, 1, None, context.kv_cache, Slot("readout", loop, index), value_embeddings
            )
        return self.reading(hidden, loop, context.loops)

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        if self.unembedding is not None and self._head_is_dressed():
            return self.unembedding(features)
        return F.linear(features, summed_wide(self._matrix()))

    def declared_exponent(self, loop: int, loops: int) -> float | str | None:
        return None if self.coda else self.reading.scale_exponent(loop, loops)

    def declared_effect(self) -> str | None:
        effects = [step.effect for step in self.carries.values() if isinstance(step, AbstractCarry)]
        return next((effect for effect in ("removes", "damps", "keeps") if effect in effects), None)

    def carry_steps(self) -> list[CarryStep]:
        return [
            CarryStep(name, step.effect, step)
            for name, step in zip(self.config.carry, self.carries.values(), strict=True)
            if isinstance(step, AbstractCarry)
        ]

    def loop_layers(self) -> list[nn.Module]:
        return list(self.layers)

    def head_matrix(self) -> Float[Tensor, "vocab dim"] | None:
        changed = type(self).head is not LoopedTransformer.head or "head" in self.__dict__
        return None if changed or self._head_is_dressed() else self._matrix()

    def _head_is_dressed(self) -> bool:
        """Whether the head does more than multiply by its matrix: an adapter of PEFT, weights brought in, hooks."""
        head = self.unembedding
        return head is not None and (type(head) is not nn.Linear or has_hooks(head))

    def _matrix(self) -> Tensor:
        return self.token_embedding.weight if self.unembedding is None else self.unembedding.weight

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return None if self.gate is None else self.gate(self._gate_input(hidden, loop, context)).squeeze(-1)

    def gate_alone(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        if self.gate is None:
            return None
        # The readout's norm (which the carry may share) and the coda belong to the language model.
        with torch.no_grad():
            read = self._gate_input(hidden.detach(), loop, context)
        return self.gate(read).squeeze(-1)

    def _gate_input(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden if self.config.gate_reads == "hidden" else self.readout(hidden, loop, context)

    def _start(
        self, entry: Float[Tensor, "batch seq dim"], kv_cache: AbstractKVCache | None
    ) -> Float[Tensor, "batch seq dim"]:
        """H_0 as loop 1 receives it: the decay applies to it as to every later state."""
        hidden = self.start(entry, None if kv_cache is None else kv_cache.positions)
        decay = self._decay()
        return hidden if decay is None else decay(hidden, 0)

    def _decay(self) -> DecayCarry | None:
        return next((step for step in self.carries.values() if isinstance(step, DecayCarry)), None)

    def _value_embeddings(self, place: int, input_ids: Tensor) -> Tensor | None:
        """Value embeddings of layer `place`, counted from the prelude to the coda, where it has any."""
        return None if self.value_embeddings is None else self.value_embeddings(place, input_ids)

    def _run(
        self,
        layer: nn.Module,
        hidden: Tensor,
        loop: int,
        condition: Tensor | None,
        kv_cache: AbstractKVCache | None,
        slot: Slot,
        value_embeddings: Tensor | None,
    ) -> Tensor:
        # Loops that a layer cannot tell apart are one number, and one compiled graph.
        if self.config.adapters.rank:
            loop = min(loop, self.loops)
        else:
            loop = min(loop, 2) if self.config.looped == "attention" else 1
        again = ("layer",) if slot.part == "core" else ("layer", "loop")
        cache = None if kv_cache is None else CacheRef(kv_cache, slot)
        run: Callable[..., Tensor] = self.run_layer if cache is None else run_cached
        if self.gradient_checkpointing in again and torch.is_grad_enabled():
            return checkpoint(
                run, layer, hidden, loop, condition, cache, value_embeddings, use_reentrant=False
            )
        return run(layer, hidden, loop, condition, cache, value_embeddings)

    def parameter_count(self) -> int:
        """Trainable numbers; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


def _remembers(config: ModelConfig) -> tuple[Part, ...]:
    """The parts that have attention, in the order they run."""
    parts: dict[Part, int] = {"embed": config.prelude, "core": config.layers, "readout": config.coda}
    return tuple(part for part, layers in parts.items() if layers)
