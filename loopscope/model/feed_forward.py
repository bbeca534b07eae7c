"""Feed-forward branches: gated with three matrices, or plain with two."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.adapters import apply, linear
from loopscope.model.config import ModelConfig


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), without biases."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        self.gate = linear(config.dim, config.width, config, adapted)
        self.up = linear(config.dim, config.width, config, adapted)
        self.down = linear(config.width, config.dim, config, adapted)

    def forward(self, x: Float[Tensor, "batch seq dim"], loop: int = 1) -> Float[Tensor, "batch seq dim"]:
        return apply(self.down, F.silu(apply(self.gate, x, loop)) * apply(self.up, x, loop), loop)


class Plain(nn.Module):
    """down(φ(up(x))), without biases; φ is GELU, or ReLU squared (So et al., "Primer", arXiv 2109.08668)."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        self.squared = config.block.activation == "relu2"
        self.up = linear(config.dim, config.width, config, adapted)
        self.down = linear(config.width, config.dim, config, adapted)

    def forward(self, x: Float[Tensor, "batch seq dim"], loop: int = 1) -> Float[Tensor, "batch seq dim"]:
        inner = apply(self.up, x, loop)
        return apply(self.down, F.relu(inner).square() if self.squared else F.gelu(inner), loop)


def build_feed_forward(config: ModelConfig, adapted: bool = False) -> SwiGLU | Plain:
    """The feed-forward a config names."""
    return SwiGLU(config, adapted) if config.block.activation == "swiglu" else Plain(config, adapted)
