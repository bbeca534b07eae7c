"""Carry: how much of a relative change of scale survives to the next loop.

d log s_{k+1} / d log s_k by a two-sided difference: H_k scaled by (1 ± eps) goes through one carry and core.
1: carried whole (a pre-norm recurrence at large scale). 0: removed (a norm between loops).

A loop is not run for an input that another run had, but for rounding: what a norm between loops hands on, for one.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from loopscope.audit.model_end import or_of_the_loop_before
from loopscope.audit.sameness import same_to_rounding
from loopscope.numerics import l2_norm, scale, wide
from loopscope.recurrence import LoopState, carried
from loopscope.results import Carry

LARGE = 1000.0
"""Size at which a loop's slope is measured: what it adds of its own, injections and normed branches, is small there."""
SCALE_STEP = 1e-2
"""Relative change of scale: in fp32 the difference of logarithms then keeps about five digits."""


@torch.no_grad()
def measure_carries(states: Iterable[LoopState], slopes: bool = True) -> list[Carry]:
    """Return the carry of every given state into the loop after it (of the last one too, one loop deeper).

    Args:
        states: of one unroll that nothing was sent into, in order.
        slopes: measure what a loop leaves of a large state, too: half of the price. NaN otherwise.

    Returns:
        One record per state. The last one's is that of the loop before it where the model does not run one loop more.
    """
    given = list(states)
    after = [*given[1:], None]
    found: list[Carry] = []
    for state, following in zip(given, after, strict=True):
        found.append(or_of_the_loop_before(partial(_carry, state, following, slopes), state, found))
    return found


def _carry(state: LoopState, following: LoopState | None, slopes: bool) -> Carry:
    hidden, passed = state.hidden, carried(state, state.hidden)
    runs: list[tuple[Tensor, Tensor]] = []
    if following is not None and following.loop == state.loop + 1:
        runs.append((passed, following.hidden))

    def following_at(factor: float) -> Tensor:
        entering = carried(state, hidden * factor)
        known = next((later for before, later in runs if same_to_rounding(entering, before)), None)
        if known is None:
            known = state.model.core(entering, state.loop + 1, state.context)
            runs.append((entering, known))
        return wide(known)

    return carry_of(state.loop, hidden, following_at, passed, slopes)


def carry_of(
    loop: int,
    own: Tensor,
    following: Callable[[float], Tensor],
    passed: Tensor | None = None,
    slopes: bool = True,
) -> Carry:
    """Return the carry of vectors with a scale, H_k or what goes beside it, into the next loop.

    Args:
        own: the vectors, [... dim].
        following: what comes of them one loop later, were they this many times as large.
        passed: what is handed on of them between loops, for the gain; None: they themselves.
        slopes: measure the slope too; NaN otherwise.
    """
    logs = [scale(following(factor)).log().double() for factor in (1 + SCALE_STEP, 1 - SCALE_STEP)]
    change = (logs[0] - logs[1]) / math.log((1 + SCALE_STEP) / (1 - SCALE_STEP))
    # A state of zeros (a padding token) has no scale to change.
    counted = (scale(own) > 0) & torch.isfinite(change)
    if not bool(counted.any()):
        return Carry(loop, math.nan, math.nan, math.nan, math.nan)
    change, size = change[counted], l2_norm(own)[counted]
    gain = 1.0 if passed is None else float((l2_norm(passed)[counted] / size).mean())
    slope = math.nan
    if slopes:
        grown = l2_norm(following(2 * LARGE) - following(LARGE))[counted]
        slope = float((grown / (LARGE * size)).mean())
    return Carry(loop, float(change.mean()), float(change.std(correction=0)), gain, slope)
