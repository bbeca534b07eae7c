"""Carry: how much of a relative change of scale survives to the next loop.

d log s_{k+1} / d log s_k by a two-sided difference: H_k scaled by (1 ± eps) goes through one carry and core.
1: carried whole (a pre-norm recurrence at large scale). 0: removed (a norm between loops).
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from loopscope.numerics import l2_norm, scale, wide
from loopscope.recurrence import LoopState, carried, next_hidden
from loopscope.results import Carry

LARGE = 1000.0
"""Size at which a loop's slope is measured: what it adds of its own, injections and normed branches, is small there."""
SCALE_STEP = 1e-2
"""Relative change of scale: in fp32 the difference of logarithms then keeps about five digits."""


@torch.no_grad()
def measure_carries(states: Iterable[LoopState]) -> list[Carry]:
    """Return the carry of every given state into the loop after it (of the last one too, one loop deeper)."""
    return [_carry(state) for state in states]


def _carry(state: LoopState) -> Carry:
    hidden = state.hidden

    def following(factor: float) -> Tensor:
        return wide(next_hidden(state, hidden * factor))

    logs = [scale(following(factor)).log().double() for factor in (1 + SCALE_STEP, 1 - SCALE_STEP)]
    change = (logs[0] - logs[1]) / math.log((1 + SCALE_STEP) / (1 - SCALE_STEP))
    # A state of zeros (a padding token) has no scale to change.
    counted = (scale(hidden) > 0) & torch.isfinite(change)
    change, size = change[counted], l2_norm(hidden)[counted]
    gain = l2_norm(carried(state, hidden))[counted] / size
    slope = l2_norm(following(2 * LARGE) - following(LARGE))[counted] / (LARGE * size)
    return Carry(
        loop=state.loop,
        mean=float(change.mean()),
        spread=float(change.std(correction=0)),
        gain=float(gain.mean()),
        slope=float(slope.mean()),
    )
