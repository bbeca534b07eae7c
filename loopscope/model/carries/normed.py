"""Carries that normalise between loops: the scale of H_k does not reach loop k + 1."""

from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.carries.base import AbstractCarry


class NormCarry(AbstractCarry):
    """RMSNorm or LayerNorm, with one set of gains shared by all loops."""

    def __init__(self, norm: nn.RMSNorm | nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)

    def removes_scale(self) -> bool:
        return True
