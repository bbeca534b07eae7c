"""The input is added through a gate that reads the state and the input."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.injections.base import AbstractInjection


class GatedInjection(AbstractInjection):
    """h + σ(W[h; e] + b)·e, one gate per channel. A large state saturates it: it is then all open or shut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * dim, dim)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden + torch.sigmoid(self.gate(torch.cat([hidden, entry], dim=-1))) * entry
