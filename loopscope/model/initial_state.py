"""H_0, the state the first loop starts from, where it is not the input itself."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

SPREAD = (2 / 5) ** 0.5
"""Standard deviation of the noise, cut at three of them, as in Geiping et al., arXiv 2502.05171."""

EVALUATION_SEED = 0
BLOCK = 256
"""Positions drawn at a time in evaluation: the noise of a prefix is the prefix of the noise."""


def random_start(
    like: Float[Tensor, "batch seq dim"],
    training: bool,
    positions: Int[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq dim"]:
    """Truncated normal noise.

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
