"""Readouts that divide by the state's own size: the cross-entropy behind them is blind to scale."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.config.variants import READOUTS
from loopscope.model.readouts.base import AbstractReadout
from loopscope.ops.rms_norm import RMSNorm


class RMSNormReadout(AbstractReadout):
    """RMSNorm with a gain per channel: the published default."""

    declaration = READOUTS.shipped["rmsnorm"].declaration

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps=eps)

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "RMSNormReadout":
        return cls(config.dim, config.norm_eps)

    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)


class LayerNormReadout(AbstractReadout):
    """LayerNorm with gain and bias; it also removes the mean over channels."""

    declaration = READOUTS.shipped["layernorm"].declaration

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "LayerNormReadout":
        return cls(config.dim, config.norm_eps)

    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)
