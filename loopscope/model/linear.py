"""Matrices of layers, with a low-rank change per loop where a model has adapters.

The shared matrix W is in loop k the matrix W + (alpha / rank)·B_k·A_k, as in relaxed recursive transformers (Bae et
al., arXiv 2410.20672; LoRA: Hu et al., arXiv 2106.09685). B starts at zero, so that an adapted model starts as the
shared one; A draws from torch's generator.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig


class AdaptedLinear(nn.Linear):
    """A shared matrix with one low-rank change per trained loop; later loops use the last one's."""

    def __init__(self, inputs: int, outputs: int, loops: int, rank: int, gain: float, bias: bool) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.gain = gain
        self.down_by_loop = nn.Parameter(torch.randn(loops, rank, inputs) / inputs**0.5)
        self.up_by_loop = nn.Parameter(torch.zeros(loops, outputs, rank))

    def in_loop(self, x: Float[Tensor, "*batch inputs"], loop: int) -> Float[Tensor, "*batch outputs"]:
        """Return W x + gain · B_k A_k x."""
        index = min(loop, len(self.up_by_loop)) - 1
        change = F.linear(F.linear(x, self.down_by_loop[index]), self.up_by_loop[index])
        return self(x) + self.gain * change


def build_linear(
    inputs: int, outputs: int, config: ModelConfig, adapted: bool, bias: bool = False
) -> nn.Linear:
    """Return a matrix, with adapters where a shared layer has them."""
    rank = config.adapters.rank
    if not adapted or rank == 0:
        return nn.Linear(inputs, outputs, bias=bias)
    return AdaptedLinear(inputs, outputs, config.loops, rank, config.adapters.alpha / rank, bias)


def in_loop(matrix: nn.Module, loop: int) -> Callable[[Tensor], Tensor]:
    """Return a layer's matrix as loop `loop` has it: itself, but for one with adapters."""
    return partial(matrix.in_loop, loop=loop) if isinstance(matrix, AdaptedLinear) else matrix
