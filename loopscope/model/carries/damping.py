"""Damping: H_k times one learned number in (0, 1). Scale shrinks between loops but is still carried."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.carries.base import AbstractCarry


class DampingCarry(AbstractCarry):
    """The factor is a sigmoid, so it can never amplify."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(math.log(start / (1 - start))))

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return hidden * torch.sigmoid(self.logit)

    def removes_scale(self) -> bool:
        return False
