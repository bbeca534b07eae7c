"""Feed-forward branches: gated with three matrices, or plain with two."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.linear import apply, linear, project
from loopscope.ops.dispatch import cast_once, is_plain, own_operations
from loopscope.ops.rms_norm import folds
from loopscope.ops.swiglu import gated


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), without biases."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        self.gate = linear(config.dim, config.width, config, adapted)
        self.up = linear(config.dim, config.width, config, adapted)
        self.down = linear(config.width, config.dim, config, adapted)

    def forward(
        self, x: Float[Tensor, "batch seq dim"], loop: int = 1, norm: nn.Module | None = None
    ) -> Float[Tensor, "batch seq dim"]:
        """Of x, or of what a norm makes of it."""
        if self._at_once(x) and (norm is None or folds(norm, x)):
            return gated(x, self.gate.weight, self.up.weight, self.down.weight, norm)
        x = cast_once(x if norm is None else norm(x))
        return apply(self.down, silu_times(apply(self.gate, x, loop), apply(self.up, x, loop)), loop)

    def _at_once(self, x: Tensor) -> bool:
        """Whether `gated` does it: a gradient is recorded on a CPU, and the matrices are nothing but matrices."""
        here = torch.is_grad_enabled() and own_operations(x)
        return here and all(is_plain(matrix) for matrix in (self.gate, self.up, self.down))


class Plain(nn.Module):
    """down(φ(up(x))), without biases; φ is GELU, or ReLU squared (So et al., "Primer", arXiv 2109.08668)."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        self.squared = config.block.activation == "relu2"
        self.up = linear(config.dim, config.width, config, adapted)
        self.down = linear(config.width, config.dim, config, adapted)

    def forward(
        self, x: Float[Tensor, "batch seq dim"], loop: int = 1, norm: nn.Module | None = None
    ) -> Float[Tensor, "batch seq dim"]:
        """Of x, or of what a norm makes of it."""
        inner = project(self.up, x, loop, norm)
        return project(self.down, F.relu(inner).square() if self.squared else F.gelu(inner), loop)


def silu_times(
    gate: Float[Tensor, "batch seq width"], up: Float[Tensor, "batch seq width"]
) -> Float[Tensor, "batch seq width"]:
    """silu(gate) · up. silu is computed again in the backward pass, bit for bit: a quarter less is kept."""
    if gate.requires_grad and not torch.compiler.is_compiling():
        return _SiluTimes.apply(gate, up)
    return F.silu(gate) * up


class _SiluTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        inner = above * up
        if torch.is_grad_enabled():  # a second derivative is wanted
            open_ = torch.sigmoid(gate)
            return inner * open_ * (1 + gate * (1 - open_)), above * F.silu(gate)
        return torch.ops.aten.silu_backward(inner, gate), above * F.silu(gate)


def build_feed_forward(config: ModelConfig, adapted: bool = False) -> SwiGLU | Plain:
    """The feed-forward a config names."""
    return SwiGLU(config, adapted) if config.block.activation == "swiglu" else Plain(config, adapted)
