"""Readouts that divide by the state's own size: the cross-entropy behind them is blind to scale."""

from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.readouts.base import AbstractReadout
from loopscope.ops.rms_norm import RMSNorm


class RMSNormReadout(AbstractReadout):
    """RMSNorm with a gain per channel: the published default."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps=eps)

    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)

    def scale_exponent(self, loop: int, loops: int) -> float:
        return 0.0


class LayerNormReadout(AbstractReadout):
    """LayerNorm with gain and bias; it also removes the mean over channels."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)

    def scale_exponent(self, loop: int, loops: int) -> float:
        return 0.0
