"""Feed-forward branches: gated with three matrices, or plain with two."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.linear import build_linear, in_loop
from loopscope.ops.linear import linear
from loopscope.ops.swiglu import gated_linear


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        bias = config.block.bias
        self.gate = build_linear(config.dim, config.width, config, adapted, bias)
        self.up = build_linear(config.dim, config.width, config, adapted, bias)
        self.down = build_linear(config.width, config.dim, config, adapted, bias)

    def forward(self, x: Float[Tensor, "batch seq dim"], loop: int = 1) -> Float[Tensor, "batch seq dim"]:
        """Return the branch's output in loop `loop`."""
        return gated_linear(x, *(in_loop(matrix, loop) for matrix in (self.gate, self.up, self.down)))


class Plain(nn.Module):
    """down(φ(up(x))); φ is GELU in one of its forms, or ReLU squared (So et al., "Primer", arXiv 2109.08668)."""

    def __init__(self, config: ModelConfig, adapted: bool = False) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.block.activation]
        self.up = build_linear(config.dim, config.width, config, adapted, config.block.bias)
        self.down = build_linear(config.width, config.dim, config, adapted, config.block.bias)

    def forward(self, x: Float[Tensor, "batch seq dim"], loop: int = 1) -> Float[Tensor, "batch seq dim"]:
        """Return the branch's output in loop `loop`."""
        return linear(self.activation(linear(x, in_loop(self.up, loop))), in_loop(self.down, loop))


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_new(x: Tensor) -> Tensor:
    """The tanh approximation step by step, in the order in which transformers' GPT-2 rounds it."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": _gelu_tanh,
    "gelu-new": _gelu_new,
    "relu2": _relu2,
}


def build_feed_forward(config: ModelConfig, adapted: bool = False) -> SwiGLU | Plain:
    """Return the feed-forward that a config names."""
    return SwiGLU(config, adapted) if config.block.activation == "swiglu" else Plain(config, adapted)
