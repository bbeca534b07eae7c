"""Carry: how much of a relative change of scale survives to the next loop.

d log s_{k+1} / d log s_k by a two-sided difference: H_k scaled by (1 ± eps) goes through one carry and core.
1: carried whole (a pre-norm recurrence at large scale). 0: removed (a norm between loops).
"""

import math
from collections.abc import Iterable

import torch

from loopscope.recurrence import LoopState, l2_norm, scale, wide
from loopscope.results import Carry

STEP = 1e-2
"""Relative change of scale: in fp32 the difference of logarithms then keeps about five digits."""


@torch.no_grad()
def carries(states: Iterable[LoopState]) -> list[Carry]:
    """Carry of every given state into the loop after it (of the last one too, one loop deeper)."""
    return [_carry(state) for state in states]


def _carry(state: LoopState) -> Carry:
    model, hidden, loop, context = state.model, state.hidden, state.loop, state.context
    logs = []
    for factor in (1 + STEP, 1 - STEP):
        carried = model.carry(hidden * factor, loop, context)
        logs.append(scale(model.core(carried, loop + 1, context)).log().double())
    slope = (logs[0] - logs[1]) / math.log((1 + STEP) / (1 - STEP))
    once, twice = model.carry(hidden, loop, context), model.carry(2 * hidden, loop, context)
    size = l2_norm(hidden).clamp(min=1e-30)
    return Carry(
        loop=loop,
        mean=float(slope.mean()),
        spread=float(slope.std(correction=0)),
        gain=float((l2_norm(once) / size).mean()),
        slope=float((l2_norm(wide(twice) - wide(once)) / size).mean()),
    )
