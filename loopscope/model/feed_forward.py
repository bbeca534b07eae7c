"""Feed-forward branches: gated with three matrices, or plain with two."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.linear import build_linear, in_loop
from loopscope.numerics import matmul_dtype
from loopscope.ops.linear import linear, plain_linear
from loopscope.ops.swiglu import can_swiglu, swiglu


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), without biases."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        self.gate = build_linear(config.dim, config.width, config, adapted)
        self.up = build_linear(config.dim, config.width, config, adapted)
        self.down = build_linear(config.width, config.dim, config, adapted)

    def forward(self, x: Float[Tensor, "batch seq dim"], loop: int = 1) -> Float[Tensor, "batch seq dim"]:
        """Return the branch's output in loop `loop`."""
        if can_swiglu(x, self.gate, self.up, self.down):
            return swiglu(x, self.gate.weight, self.up.weight, self.down.weight)
        gate, up, down = (in_loop(matrix, loop) for matrix in (self.gate, self.up, self.down))
        x = x.to(matmul_dtype(x))  # once for both
        return plain_linear(F.silu(plain_linear(x, gate)) * plain_linear(x, up), down)


class Plain(nn.Module):
    """down(φ(up(x))), without biases; φ is GELU, or ReLU squared (So et al., "Primer", arXiv 2109.08668)."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        self.squared = config.block.activation == "relu2"
        self.up = build_linear(config.dim, config.width, config, adapted)
        self.down = build_linear(config.width, config.dim, config, adapted)

    def forward(self, x: Float[Tensor, "batch seq dim"], loop: int = 1) -> Float[Tensor, "batch seq dim"]:
        """Return the branch's output in loop `loop`."""
        inner = linear(x, in_loop(self.up, loop))
        return linear(F.relu(inner).square() if self.squared else F.gelu(inner), in_loop(self.down, loop))


def build_feed_forward(config: ModelConfig, adapted: bool = False) -> SwiGLU | Plain:
    """Return the feed-forward that a config names."""
    return SwiGLU(config, adapted) if config.block.activation == "swiglu" else Plain(config, adapted)
