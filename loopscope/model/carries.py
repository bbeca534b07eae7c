"""Carries: what happens to the state between loops.

The diagonal decay is the exact discretisation of a negative diagonal, a = exp(-dt·A) with A = exp(log_rate) > 0 and
dt = softplus(raw_step) > 0, which no value of the parameters can make unstable (Parcae, Prairie et al., arXiv
2604.12946).
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import Variant, carries_of
from loopscope.model.config.declarations import CarryDeclaration, Effect
from loopscope.model.config.variants import CARRIES
from loopscope.model.readouts import AbstractReadout
from loopscope.model.variant import AbstractVariant, build_variant
from loopscope.ops.rms_norm import RMSNorm


class AbstractCarry(AbstractVariant):
    """Applied between loops, never after the last one.

    Attributes:
        declaration: what costs, audits and checks of a config ask. Every class has its own.
        effect: on scale, as declared for the config it was built from.
    """

    declaration: ClassVar[CarryDeclaration]
    effect: Effect

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        """Take H_k of loop k = `loop` a step on its way to loop k + 1."""

    def share(self, norm: nn.Module) -> None:
        """Receive the readout's norm, in a carry that declares `readout_norm`."""

    def removes_scale(self) -> bool:
        """Whether the output no longer depends on the input's scale (up to a norm's eps)."""
        return self.effect == "removes"


class RMSNormCarry(AbstractCarry):
    """RMSNorm, with one set of gains shared by all loops."""

    declaration = CARRIES.shipped["rmsnorm"].declaration

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps=eps)

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "RMSNormCarry":
        return cls(config.dim, config.norm_eps)

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)


class LayerNormCarry(AbstractCarry):
    """LayerNorm, with one set of gains and biases shared by all loops."""

    declaration = CARRIES.shipped["layernorm"].declaration

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "LayerNormCarry":
        return cls(config.dim, config.norm_eps)

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return self.norm(hidden)


class ReadoutNormCarry(AbstractCarry):
    """Uses the readout's norm without owning it: its gain is one parameter, saved once, under `reading`."""

    declaration = CARRIES.shipped["readout-norm"].declaration

    def share(self, norm: nn.Module) -> None:
        self._shared = (norm,)  # in a tuple, so that it is not registered a second time

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        (norm,) = self._shared
        return norm(hidden)


class DampingCarry(AbstractCarry):
    """The factor is a sigmoid, so it can never amplify."""

    declaration = CARRIES.shipped["damping"].declaration

    def __init__(self, start: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(math.log(start / (1 - start))))

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "DampingCarry":
        return cls(config.damping)

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return hidden * torch.sigmoid(self.logit)


class DecayCarry(AbstractCarry):
    """H_k times a, channel by channel.

    Starts with dt = 1 - a, so that the linear part with an identity write has the input as its fixed point. The
    gradient at the start is da / dlog A = a·ln a: 0.095 at a = 0.9. (A sigmoid started within 6e-6 of 1 has a
    gradient of 6e-6 and stays there: hence the bounds on `decay` in the config.)
    """

    declaration = CARRIES.shipped["decay"].declaration

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        step = 1 - start
        self.log_rate = nn.Parameter(torch.full((dim,), math.log(-math.log(start) / step)))
        self.raw_step = nn.Parameter(torch.full((dim,), math.log(math.expm1(step))))

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "DecayCarry":
        return cls(config.dim, config.decay)

    def step(self) -> Float[Tensor, " dim"]:
        """dt, which the write injection shares."""
        return F.softplus(self.raw_step)

    def decay(self) -> Float[Tensor, " dim"]:
        """a, per channel."""
        return torch.exp(-self.step() * self.log_rate.exp())

    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        return hidden * self.decay()


def build_carries(config: ModelConfig) -> nn.ModuleDict:
    """Return the carry's steps by name, in the order they are applied; empty when the state is carried whole.

    Steps that use the readout's norm are complete once `share_norm` has been called.
    """
    return nn.ModuleDict({module_name(chosen.name): _build(chosen) for chosen in carries_of(config)})


def module_name(name: str) -> str:
    """What a step's module is registered as: its name, in which `package.module:Class` has its dots replaced."""
    return name.replace(".", "-")


def share_norm(carries: nn.ModuleDict, reading: AbstractReadout) -> None:
    """Give the steps that use the readout's norm that norm."""
    for step in carries.values():
        assert isinstance(step, AbstractCarry)
        if step.declaration.readout_norm:
            norm = reading.norm
            assert isinstance(norm, nn.Module), "the config checks that the readout has a norm"
            step.share(norm)


def _build(chosen: Variant[CarryDeclaration]) -> AbstractCarry:
    carry: AbstractCarry = build_variant(CARRIES, chosen)
    carry.effect = chosen.value("effect")
    return carry
