"""Carries: what happens to the state between loops. A new one is a file here and a line below."""

from torch import nn

from loopscope.model.carries.base import AbstractCarry
from loopscope.model.carries.damping import DampingCarry
from loopscope.model.carries.normed import NormCarry
from loopscope.model.config import CarryKind, ModelConfig

__all__ = ["AbstractCarry", "DampingCarry", "NormCarry", "build_carries"]


def build_carries(config: ModelConfig) -> nn.ModuleDict:
    """The carry's steps by name, in the order they are applied; empty when the state is carried whole."""
    return nn.ModuleDict({kind: _build(kind, config) for kind in config.carry})


def _build(kind: CarryKind, config: ModelConfig) -> AbstractCarry:
    match kind:
        case "rmsnorm":
            return NormCarry(nn.RMSNorm(config.dim, eps=config.norm_eps))
        case "layernorm":
            return NormCarry(nn.LayerNorm(config.dim, eps=config.norm_eps))
        case "damping":
            return DampingCarry(config.damping)
