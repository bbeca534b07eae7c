"""Raw at every loop but the last, RMSNorm at the last: scale is seen, the output is normalised."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from loopscope.model.config import ModelConfig
from loopscope.model.config.variants import READOUTS
from loopscope.model.readouts.base import AbstractReadout
from loopscope.ops.rms_norm import RMSNorm


class FinalOnlyReadout(AbstractReadout):
    """The norm applies at whatever loop is last in this unroll, as in the published code."""

    declaration = READOUTS.shipped["final-only"].declaration

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps=eps)

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "FinalOnlyReadout":
        return cls(config.dim, config.norm_eps)

    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden) if loop == loops else hidden
