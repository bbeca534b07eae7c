"""The input is added to the state (input injection of Bansal et al., arXiv 2202.05826)."""

from jaxtyping import Float
from torch import Tensor

from loopscope.model.injections.base import AbstractInjection


class AddInjection(AbstractInjection):
    """h + e. As the state grows, the input's share in it falls as 1 / s."""

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden + entry
