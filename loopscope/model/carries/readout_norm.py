"""The readout's own norm between loops: what is read is what is carried on (Ouro, arXiv 2510.25741)."""

from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.carries.base import AbstractCarry


class ReadoutNormCarry(AbstractCarry):
    """Uses the readout's norm without owning it: its gain is one parameter, saved once, under `reading`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._shared = (norm,)  # in a tuple, so that it is not registered a second time

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        (norm,) = self._shared
        return norm(hidden)

    def removes_scale(self) -> bool:
        return True
