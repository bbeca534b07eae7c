"""The learned write that belongs to the diagonal decay (Parcae, Prairie et al., arXiv 2604.12946).

The carry and this are the two halves of one discretised linear system: h ← exp(-dt·A)·h + dt·B e.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.injections.base import AbstractInjection


class WriteInjection(AbstractInjection):
    """h + dt·(B e). B starts as the identity, under every initialisation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.write = nn.Parameter(torch.eye(dim))

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        assert step is not None, "the config checks that a write has its decay"
        return hidden + step * nn.functional.linear(entry, self.write)
