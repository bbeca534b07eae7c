"""Per-loop low-rank adapters: the shared matrix W, and in loop k the matrix W + (alpha / rank)·B_k·A_k.

As in relaxed recursive transformers (Bae et al., arXiv 2410.20672; LoRA: Hu et al., arXiv 2106.09685). B starts
at zero, so that an adapted model starts as the shared one; A draws from torch's generator.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.ops.dispatch import is_plain, own_operations
from loopscope.ops.linear import gathered_linear, normed_linear
from loopscope.ops.rms_norm import folds


class AdaptedLinear(nn.Linear):
    """A shared matrix with one low-rank change per trained loop; later loops use the last one's."""

    def __init__(self, inputs: int, outputs: int, loops: int, rank: int, gain: float) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.gain = gain
        self.down_by_loop = nn.Parameter(torch.randn(loops, rank, inputs) / inputs**0.5)
        self.up_by_loop = nn.Parameter(torch.zeros(loops, outputs, rank))

    def in_loop(self, x: Float[Tensor, "*batch inputs"], loop: int) -> Float[Tensor, "*batch outputs"]:
        """W x + gain · B_k A_k x."""
        index = min(loop, len(self.up_by_loop)) - 1
        change = F.linear(F.linear(x, self.down_by_loop[index]), self.up_by_loop[index])
        return self(x) + self.gain * change


def linear(inputs: int, outputs: int, config: ModelConfig, adapted: bool) -> nn.Linear:
    """A matrix without bias, with adapters where a shared layer has them."""
    rank = config.adapters.rank
    if not adapted or rank == 0:
        return nn.Linear(inputs, outputs, bias=False)
    return AdaptedLinear(inputs, outputs, config.loops, rank, config.adapters.alpha / rank)


def apply(module: nn.Module, x: Float[Tensor, "*batch inputs"], loop: int) -> Float[Tensor, "*batch outputs"]:
    """The matrix as loop `loop` has it."""
    if isinstance(module, AdaptedLinear):
        return module.in_loop(x, loop)
    if is_plain(module):
        # What calling it does, without the call: a tenth of a cached step's time goes into calls of modules.
        return F.linear(x, module.weight, module.bias)
    return module(x)


def project(
    matrix: nn.Module, x: Float[Tensor, "batch seq dim"], loop: int, norm: nn.Module | None = None
) -> Float[Tensor, "batch seq out"]:
    """A layer's matrix as loop `loop` has it, of x or of what a norm makes of it."""
    if not (torch.is_grad_enabled() and is_plain(matrix) and matrix.bias is None and own_operations(x)):
        return apply(matrix, x if norm is None else norm(x), loop)
    if norm is not None and folds(norm, x):
        return normed_linear(x, norm, matrix.weight)
    return gathered_linear(x if norm is None else norm(x), matrix.weight)
