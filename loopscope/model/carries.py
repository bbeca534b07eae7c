"""Carries: what happens to the state between loops.

The diagonal decay is the exact discretisation of a negative diagonal, a = exp(-dt·A) with A = exp(log_rate) > 0 and
dt = softplus(raw_step) > 0, which no value of the parameters can make unstable (Parcae, Prairie et al., arXiv
2604.12946).
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import CarryKind, ModelConfig
from loopscope.model.readouts import AbstractReadout
from loopscope.ops.rms_norm import RMSNorm


class AbstractCarry(nn.Module, ABC):
    """Applied between loops, never after the last one."""

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        """H_k of loop k = `loop` on its way to loop k + 1."""

    @abstractmethod
    def removes_scale(self) -> bool:
        """Whether the output no longer depends on the input's scale (up to a norm's eps)."""


class NormCarry(AbstractCarry):
    """RMSNorm or LayerNorm, with one set of gains shared by all loops."""

    def __init__(self, norm: nn.RMSNorm | nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)

    def removes_scale(self) -> bool:
        return True


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


class DampingCarry(AbstractCarry):
    """The factor is a sigmoid, so it can never amplify."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(math.log(start / (1 - start))))

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return hidden * torch.sigmoid(self.logit)

    def removes_scale(self) -> bool:
        return False


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


def build_carries(config: ModelConfig) -> nn.ModuleDict:
    """The carry's steps by name, in the order they are applied; empty when the state is carried whole.

    `readout-norm` is complete once `share_norm` has been called.
    """
    return nn.ModuleDict({kind: _build(kind, config) for kind in config.carry})


def share_norm(carries: nn.ModuleDict, reading: AbstractReadout) -> None:
    """Give the step that uses the readout's norm that norm."""
    if "readout-norm" in carries:
        norm = reading.norm
        assert isinstance(norm, nn.Module), "the config checks that the readout has a norm"
        carries["readout-norm"] = ReadoutNormCarry(norm)


def _build(kind: CarryKind, config: ModelConfig) -> nn.Module:
    match kind:
        case "rmsnorm":
            return NormCarry(RMSNorm(config.dim, eps=config.norm_eps))
        case "layernorm":
            return NormCarry(nn.LayerNorm(config.dim, eps=config.norm_eps))
        case "readout-norm":
            return nn.Identity()
        case "damping":
            return DampingCarry(config.damping)
        case "decay":
            return DecayCarry(config.dim, config.decay)
