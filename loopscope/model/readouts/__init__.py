"""Readouts: H_k to the head's input. A new one is a file here, a line below and a name in `ReadoutConfig`."""

from loopscope.model.config import ModelConfig
from loopscope.model.readouts.alpha import AlphaReadout
from loopscope.model.readouts.base import AbstractReadout
from loopscope.model.readouts.final_only import FinalOnlyReadout
from loopscope.model.readouts.normed import LayerNormReadout, RMSNormReadout
from loopscope.model.readouts.raw import RawReadout

__all__ = [
    "AbstractReadout",
    "AlphaReadout",
    "FinalOnlyReadout",
    "LayerNormReadout",
    "RMSNormReadout",
    "RawReadout",
    "build_readout",
]


def build_readout(config: ModelConfig) -> AbstractReadout:
    """The readout a config names."""
    match config.readout.kind:
        case "rmsnorm":
            return RMSNormReadout(config.dim, config.norm_eps)
        case "layernorm":
            return LayerNormReadout(config.dim, config.norm_eps)
        case "raw":
            return RawReadout()
        case "final-only":
            return FinalOnlyReadout(config.dim, config.norm_eps)
        case "alpha":
            return AlphaReadout(config.readout, config.loops, config.norm_eps)
