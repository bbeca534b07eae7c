"""State and input side by side through one matrix (Huginn's adapter, arXiv 2502.05171)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.injections.base import AbstractInjection


class ConcatInjection(AbstractInjection):
    """W[h; e], without a bias. Linear: it scales what is left of the state and turns it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * dim, dim, bias=False)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return self.mix(torch.cat([hidden, entry], dim=-1))
