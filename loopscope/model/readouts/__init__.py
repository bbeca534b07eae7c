"""Readouts: H_k to the head's input. What each declares stands in `model.config.variants`.

base        what a readout is
normed      RMSNorm, LayerNorm: blind to scale
raw         H_k itself
final_only  raw, and RMSNorm at the last loop
alpha       a dial between the two
"""

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import exponent_of, readout_of
from loopscope.model.config.variants import READOUTS
from loopscope.model.readouts.alpha import AlphaReadout
from loopscope.model.readouts.base import AbstractReadout
from loopscope.model.readouts.final_only import FinalOnlyReadout
from loopscope.model.readouts.normed import LayerNormReadout, RMSNormReadout
from loopscope.model.readouts.raw import RawReadout
from loopscope.model.variant import build_variant

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
    """Return the readout that a config names, shipped or of the user's own."""
    chosen = readout_of(config)
    readout: AbstractReadout = build_variant(READOUTS, chosen)
    if chosen.declaration.norm and not hasattr(readout, "norm"):
        raise ValueError(
            f"readout {chosen.name!r} declares a norm and has no attribute `norm`; set it, or leave out norm=True"
        )
    readout.exponents = exponent_of(config, last=False), exponent_of(config, last=True)
    return readout
