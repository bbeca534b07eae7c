"""Loop embeddings: how the shared layers learn which loop they are in."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig

FREQUENCIES = 256
"""Sines and cosines that describe a time or a step size before the two-layer map, as in LoopFormer's code."""


class AbstractLoopEmbedding(nn.Module, ABC):
    """A vector for loop k of an unroll of `loops`."""

    added: bool
    """Whether it is added to the state. Otherwise it is the condition that modulates the layers."""

    @abstractmethod
    def forward(self, loop: int, loops: int) -> Float[Tensor, " dim"]:
        """The vector of loop `loop` (1-based)."""


class LearnedLoop(AbstractLoopEmbedding):
    """One vector per trained loop; loops past the trained depth use the last one."""

    added = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.loops, config.dim)

    def forward(self, loop: int, loops: int) -> Float[Tensor, " dim"]:
        return self.table.weight[min(loop, self.table.num_embeddings) - 1]


class SinusoidalLoop(AbstractLoopEmbedding):
    """Sines and cosines of k, as in the Universal Transformer (Dehghani et al., arXiv 1807.03819): any depth works."""

    added = True
    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.register_buffer("frequencies", self.made_frequencies(), persistent=False)

    def made_frequencies(self) -> Float[Tensor, " half"]:
        """What `frequencies` holds: no checkpoint has it, so that whoever loads one on `meta` fills it again."""
        return 10_000.0 ** -(torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim)

    def forward(self, loop: int, loops: int) -> Float[Tensor, " dim"]:
        angle = loop * self.frequencies
        return torch.cat([angle.sin(), angle.cos()])


class StepModulation(AbstractLoopEmbedding):
    """Time t = (k-1)/R and step size 1/R of an unroll of R loops, each through a two-layer map, summed.

    LoopFormer (Jeddi et al., ICLR 2026). The states of a shorter unroll are therefore not those of a longer
    one: its loops know that they are few and take larger steps.
    """

    added = False
    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.register_buffer("frequencies", self.made_frequencies(), persistent=False)
        self.time = _two_layers(config.dim)
        self.size = _two_layers(config.dim)

    def forward(self, loop: int, loops: int) -> Float[Tensor, " dim"]:
        condition = self.time(self._waves((loop - 1) / loops)) + self.size(self._waves(1 / loops))
        return F.silu(condition)

    def made_frequencies(self) -> Float[Tensor, " half"]:
        """What `frequencies` holds, as in `SinusoidalLoop`."""
        half = FREQUENCIES // 2
        return torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half)

    def _waves(self, value: float) -> Float[Tensor, " waves"]:
        angle = value * self.frequencies
        return torch.cat([angle.cos(), angle.sin()])


def _two_layers(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))


def build_loop_embedding(config: ModelConfig) -> AbstractLoopEmbedding | None:
    """The loop embedding a config names, or None."""
    match config.loop_embedding:
        case "none":
            return None
        case "learned":
            return LearnedLoop(config)
        case "sinusoidal":
            return SinusoidalLoop(config)
        case "modulation":
            return StepModulation(config)
