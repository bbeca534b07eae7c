"""The looped transformer: the five parts of the waist, filled from a `ModelConfig`."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loopscope.model.carries import build_carries
from loopscope.model.config import ModelConfig
from loopscope.model.init import initialise
from loopscope.model.layers import Layer
from loopscope.model.readouts import build_readout
from loopscope.recurrence import AbstractLoopedLM, LoopContext


class LoopedTransformer(AbstractLoopedLM):
    """One stack of pre-norm layers, applied `config.loops` times.

    Attributes:
        config: the settings it was built from.
        gradient_checkpointing: recompute each layer in the backward pass instead of keeping its
            activations. Training memory then grows with one layer's activations plus loops × layers
            hidden states, at about a third more arithmetic.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.loops
        self.readout_name = config.readout.kind
        self.gradient_checkpointing = False
        self.token_embedding = nn.Embedding(config.vocabulary, config.dim)
        self.position_embedding = (
            nn.Embedding(config.sequence, config.dim) if config.positions == "learned" else None
        )
        self.input_dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.carries = build_carries(config)
        self.reading = build_readout(config)
        self.unembedding = None if config.tied else nn.Linear(config.dim, config.vocabulary, bias=False)
        self.gate = nn.Linear(config.dim, 1) if config.exit_gate else None
        initialise(self, config)

    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        hidden = self.token_embedding(input_ids)
        if self.position_embedding is not None:
            seq = input_ids.shape[1]
            if seq > self.config.sequence:
                raise ValueError(
                    f"input_ids has {seq} tokens; this model has {self.config.sequence} learned positions. "
                    "Shorten the input, or train with positions: rotary, which have no such limit"
                )
            hidden = hidden + self.position_embedding.weight[:seq]
        return self.input_dropout(hidden)

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, use_reentrant=False)
            else:
                hidden = layer(hidden)
        return hidden

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        for step in self.carries.values():
            hidden = step(hidden, loop)
        return hidden

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.reading(hidden, loop, context.loops)

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        weight = self.token_embedding.weight if self.unembedding is None else self.unembedding.weight
        return F.linear(features, weight)

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return None if self.gate is None else self.gate(hidden).squeeze(-1)

    def parameter_count(self) -> int:
        """Trainable numbers; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
