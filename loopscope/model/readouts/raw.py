"""The raw readout: the head reads H_k itself, so the loss sees its scale."""

from jaxtyping import Float
from torch import Tensor

from loopscope.model.config.variants import READOUTS
from loopscope.model.readouts.base import AbstractReadout


class RawReadout(AbstractReadout):
    """Readout that gives the head the state itself: the identity."""

    declaration = READOUTS.shipped["raw"].declaration

    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden
