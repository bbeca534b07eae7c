"""Start states: H_0, which the first loop starts from, made of the input or not."""

from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import start_of
from loopscope.model.config.declarations import StartDeclaration
from loopscope.model.config.variants import STARTS
from loopscope.model.variant import AbstractVariant, build_variant

SPREAD = (2 / 5) ** 0.5
"""Standard deviation of the noise, cut at three of them, as in Geiping et al., arXiv 2502.05171."""

EVALUATION_SEED = 0
BLOCK = 256
"""Positions drawn at a time in evaluation: the noise of a prefix is the prefix of the noise."""


class AbstractStart(AbstractVariant):
    """Makes H_0 before the first loop.

    Attributes:
        declaration: what costs, audits and checks of a config ask. Every class has its own.
    """

    declaration: ClassVar[StartDeclaration]

    @abstractmethod
    def forward(
        self, entry: Float[Tensor, "batch seq dim"], positions: Int[Tensor, "batch seq"] | None
    ) -> Float[Tensor, "batch seq dim"]:
        """Return H_0 of the input `entry`.

        Args:
            positions: of the tokens, in generation with a cache; None: 0, 1, 2 and so on.
        """


class EmbeddingStart(AbstractStart):
    """The input itself."""

    declaration = STARTS.shipped["embedding"].declaration

    def forward(
        self, entry: Float[Tensor, "batch seq dim"], positions: Int[Tensor, "batch seq"] | None
    ) -> Float[Tensor, "batch seq dim"]:
        return entry


class ZeroStart(AbstractStart):
    """Zeros."""

    declaration = STARTS.shipped["zero"].declaration

    def forward(
        self, entry: Float[Tensor, "batch seq dim"], positions: Int[Tensor, "batch seq"] | None
    ) -> Float[Tensor, "batch seq dim"]:
        return torch.zeros_like(entry)


class RandomStart(AbstractStart):
    """Noise: see `random_start`."""

    declaration = STARTS.shipped["random"].declaration

    def forward(
        self, entry: Float[Tensor, "batch seq dim"], positions: Int[Tensor, "batch seq"] | None
    ) -> Float[Tensor, "batch seq dim"]:
        return random_start(entry, self.training, positions)


def build_start(config: ModelConfig) -> AbstractStart:
    """Return the start state that a config names, shipped or of the user's own."""
    start: AbstractStart = build_variant(STARTS, start_of(config))
    return start


def random_start(
    like: Float[Tensor, "batch seq dim"],
    training: bool,
    positions: Int[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq dim"]:
    """Return truncated normal noise of the shape of a state.

    In training it comes from torch's generator, which the training loop seeds in every step. In evaluation it
    depends on position and channel only, so that the same text gives the same numbers in any batch, at any
    length and on any device.

    Args:
        positions: of the tokens, in evaluation; None: 0, 1, 2 and so on.
    """
    if training:
        return _cut(torch.randn_like(like))
    seq, dim = like.shape[-2:]
    if positions is None:
        return _cut(_noise(-(-seq // BLOCK), dim)[:seq].to(like)).expand_as(like)
    longest = int(positions.max()) + 1
    return _cut(_noise(-(-longest // BLOCK), dim)[positions.cpu()].to(like))


@lru_cache(maxsize=4)
def _noise(blocks: int, dim: int) -> Float[Tensor, "seq dim"]:
    """The noise of the first positions, kept because generation asks for it at every token."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    return torch.cat([torch.randn(BLOCK, dim, generator=generator) for _ in range(blocks)])


def _cut(noise: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Clamp at three standard deviations (0.3 % of the draws) and give the spread."""
    return SPREAD * noise.clamp(-3, 3)
