"""Diagonal decay: every channel keeps a learned share a in (0, 1) of the state.

a = exp(-dt·A) with A = exp(log_rate) > 0 and dt = softplus(raw_step) > 0: the exact discretisation of a negative
diagonal, which no value of the parameters can make unstable (Parcae, Prairie et al., arXiv 2604.12946).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.carries.base import AbstractCarry


class DecayCarry(AbstractCarry):
    """H_k times a, channel by channel.

    Starts with dt = 1 - a, so that the linear part with an identity write has the input as its fixed point. The
    gradient at the start is da / dlog A = a·ln a: 0.095 at a = 0.9. (A sigmoid started within 6e-6 of 1 has a
    gradient of 6e-6 and stays there: hence the bounds on `decay` in the config.)
    """

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        step = 1 - start
        self.log_rate = nn.Parameter(torch.full((dim,), math.log(-math.log(start) / step)))
        self.raw_step = nn.Parameter(torch.full((dim,), math.log(math.expm1(step))))

    def step(self) -> Float[Tensor, " dim"]:
        """dt, which the write injection shares."""
        return F.softplus(self.raw_step)

    def decay(self) -> Float[Tensor, " dim"]:
        """a, per channel."""
        return torch.exp(-self.step() * self.log_rate.exp())

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return hidden * self.decay()

    def removes_scale(self) -> bool:
        return False
