"""One layer of the shared stack: pre-norm attention, then pre-norm SwiGLU, each added to the residual."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.attention import CausalSelfAttention
from loopscope.model.config import ModelConfig


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), without biases."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(dim, width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """A pre-norm layer. What it adds does not shrink as the residual grows: the source of the drift."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = CausalSelfAttention(
            config.dim, config.heads, config.dropout, rotary=config.positions == "rotary"
        )
        self.feed_forward_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = SwiGLU(config.dim, config.feed_forward * config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        hidden = hidden + self.attention(self.attention_norm(hidden))
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
