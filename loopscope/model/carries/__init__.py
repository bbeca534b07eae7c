"""Carries: what happens to the state between loops. A new one is a file here and a line below."""

from torch import nn

from loopscope.model.carries.base import AbstractCarry
from loopscope.model.carries.damping import DampingCarry
from loopscope.model.carries.decay import DecayCarry
from loopscope.model.carries.normed import NormCarry
from loopscope.model.carries.readout_norm import ReadoutNormCarry
from loopscope.model.config import CarryKind, ModelConfig
from loopscope.model.norms import RMSNorm
from loopscope.model.readouts import AbstractReadout

__all__ = [
    "AbstractCarry",
    "DampingCarry",
    "DecayCarry",
    "NormCarry",
    "ReadoutNormCarry",
    "build_carries",
    "share_norm",
]


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
