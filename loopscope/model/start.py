"""H_0, the state the first loop starts from, where it is not the input itself."""

import torch
from jaxtyping import Float
from torch import Tensor

SPREAD = (2 / 5) ** 0.5
"""Standard deviation of the noise, cut at three of them, as in Geiping et al., arXiv 2502.05171."""

EVALUATION_SEED = 0
BLOCK = 256
"""Positions drawn at a time in evaluation: the noise of a prefix is the prefix of the noise."""


def random_start(like: Float[Tensor, "batch seq dim"], training: bool) -> Float[Tensor, "batch seq dim"]:
    """Truncated normal noise.

    In training it comes from torch's generator, which the training loop seeds in every step. In evaluation it
    depends on position and channel only, so that the same text gives the same numbers in any batch, at any
    length and on any device.
    """
    if training:
        return _cut(torch.randn_like(like))
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    seq, dim = like.shape[-2:]
    blocks = [torch.randn(BLOCK, dim, generator=generator) for _ in range(-(-seq // BLOCK))]
    return _cut(torch.cat(blocks)[:seq].to(like)).expand_as(like)


def _cut(noise: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Clamp at three standard deviations (0.3 % of the draws) and give the spread."""
    return SPREAD * noise.clamp(-3, 3)
