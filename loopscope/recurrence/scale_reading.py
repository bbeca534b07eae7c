"""Whether a readout passes on the state's size."""

from dataclasses import replace

import torch

from loopscope.numerics import wide
from loopscope.recurrence.looped_model import LoopState

SAME_FEATURES = 1e-3
"""Relative difference of features up to which a readout has not seen that a state is twice as large."""


@torch.no_grad()
def reads_scale(state: LoopState) -> bool:
    """Return whether a loop's readout gives something else for a state of twice the size."""
    once, twice = (wide(replace(state, hidden=factor * state.hidden).features()) for factor in (1, 2))
    return float((twice - once).norm()) > SAME_FEATURES * float(once.norm())
