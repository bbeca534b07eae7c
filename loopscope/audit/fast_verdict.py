"""The verdict and no more, for about three forward passes: what cannot change it is not measured.

    carry        a one-sided difference: the loop's own output is known. Half of the price of a two-sided one
    slope        of loops that are carried on and not seen alone, against the loop's own output
    head         not asked where no readout shows more of the scale than rounding: no gradient through it could be seen
    grown        states thirty times as large only where no term sees the ones there are

Both differences are off by about a thousandth. Where a threshold is as near as that, the carries are measured as a
whole audit does, so that verdicts are the same: a test holds them equal.
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.audit.carry import LARGE, measure_carries
from loopscope.audit.head_readings import HeadReadings
from loopscope.audit.model_end import or_of_the_loop_before
from loopscope.audit.verdict import (
    DAMPED,
    ROUNDING,
    hangs_on_larger,
    loop_verdicts,
    model_verdict,
    saturated_loops,
)
from loopscope.audit.visibility import loop_visibilities
from loopscope.numerics import l2_norm, scale, wide
from loopscope.objectives.objective import Objective
from loopscope.objectives.token_loss import IGNORE_INDEX, Head, chunked_cross_entropy
from loopscope.recurrence import LoopState, carried, next_hidden
from loopscope.results import REMOVED, SEEN, Carry, LoopVerdict, LoopVisibility

ONE_SIDED_STEP = 1e-3
"""Relative change of scale: what a second derivative adds is below a thousandth then, and so is fp32's rounding."""
NEAR_THRESHOLD = 1.1
"""A carry or an exposure within this factor of its threshold is measured as a whole audit does."""
NEAR_DAMPED = (0.02, 0.007)
"""And a slope that is less than so much below or above its threshold. A loop that keeps a large state whole has 1."""
FEW = 64
"""Tokens that show whether a loss is exactly 0 everywhere."""


@dataclass(frozen=True)
class FastVerdict:
    """What `fast_verdict` finds: visibility, carry and verdict of every loop; and loops whose loss is exactly 0."""

    seen: list[LoopVisibility]
    carried: list[Carry]
    loops: list[LoopVerdict]
    saturated: list[int]


def fast_verdict(
    states: Sequence[LoopState],
    objective: Objective,
    labels: Int[Tensor, "batch seq"],
    carries: Sequence[Carry] | None = None,
) -> FastVerdict:
    """Return the verdict of every loop, measuring no more than it hangs on.

    Args:
        states: of one unroll made without gradients, loops 1..K.
        labels: the token that follows each input token; -100 is not counted.
        carries: what `fast_carries` returns of the same states, where it is known.

    Raises:
        ValueError: a carry that is not a number.
    """
    known = list(fast_carries(states) if carries is None else carries)
    reading = copy(objective)
    if objective.token_loss is chunked_cross_entropy:
        reading.token_loss = HeadReadings(states[0].model)
    asking = copy(reading)
    seen = loop_visibilities(states, _unread(reading), labels, grown=False)
    if any(max(loop.readout_response, loop.readout_response_grown) > ROUNDING for loop in seen):
        seen = loop_visibilities(states, asking, labels, grown=False)
    else:
        asking = _unread(reading)
    loops = loop_verdicts(seen, known)
    if hangs_on_larger(loops):
        seen = loop_visibilities(states, asking, labels)
        loops = loop_verdicts(seen, known)
    if any(loop.status == "blind" for loop in loops):
        known = [
            replace(carry, slope=_slope(state, following)) if loop.status == "blind" else carry
            for carry, loop, state, following in zip(known, loops, states[:-1], states[1:], strict=False)
        ] + known[-1:]
        loops = loop_verdicts(seen, known)
    if _in_doubt(loops, known):
        known = measure_carries(states)
        loops = loop_verdicts(seen, known)
    saturated: list[int] = []
    if model_verdict(loops) in ("blind", "damped") and _shows_no_loss(states, reading, labels):
        with torch.no_grad():
            saturated = saturated_loops(seen, reading.split(states, labels))
    return FastVerdict(seen, known, loops, saturated)


@torch.no_grad()
def fast_carries(states: Sequence[LoopState]) -> list[Carry]:
    """Return the carry of every state into the loop after it by a one-sided difference, without slopes (NaN).

    Args:
        states: of one unroll made without gradients, loops 1..K.
    """
    after = [*(state.hidden for state in states[1:]), None]
    found: list[Carry] = []
    for state, following in zip(states, after, strict=True):
        found.append(or_of_the_loop_before(partial(_carry, state, following), state, found))
    return found


def _carry(state: LoopState, following: Tensor | None) -> Carry:
    if following is None:
        following = next_hidden(state, state.hidden)
    changed = next_hidden(state, state.hidden * (1 + ONE_SIDED_STEP))
    change = (scale(changed).log().double() - scale(following).log().double()) / math.log1p(ONE_SIDED_STEP)
    counted = (scale(state.hidden) > 0) & torch.isfinite(change)  # a state of zeros has no scale to change
    change = change[counted]
    gain = l2_norm(carried(state, state.hidden))[counted] / l2_norm(state.hidden)[counted]
    return Carry(
        state.loop, float(change.mean()), float(change.std(correction=0)), float(gain.mean()), math.nan
    )


@torch.no_grad()
def _slope(state: LoopState, following: LoopState) -> float:
    """What one step between loops and one loop leave of a large state, beside what they leave of the one there is."""
    size = l2_norm(state.hidden)
    grown = l2_norm(wide(next_hidden(state, state.hidden * LARGE)) - wide(following.hidden))
    return float((grown[size > 0] / ((LARGE - 1) * size[size > 0])).mean())


def _in_doubt(loops: Sequence[LoopVerdict], carries: Sequence[Carry]) -> bool:
    """Whether a threshold is so near that a thousandth may decide."""
    below, above = NEAR_DAMPED
    return any(
        _near(abs(carry.mean), REMOVED)
        or _near(loop.exposure, SEEN)
        or _near(loop.exposure_grown, SEEN)
        or DAMPED - below < carry.slope < DAMPED + above
        for loop, carry in zip(loops, carries, strict=True)
    )


def _near(value: float, threshold: float) -> bool:
    return threshold / NEAR_THRESHOLD < value < threshold * NEAR_THRESHOLD


def _unread(objective: Objective) -> Objective:
    """A loss whose exits have no gradient by their features, for readouts that hide the scale to rounding.

    What a term sees through such a readout is at most the readout's response times what the loss changes by for one
    e-fold of the features: below `SEEN` by orders of magnitude.
    """
    if isinstance(objective.token_loss, HeadReadings):
        unread = copy(objective)
        unread.token_loss = _NoGradient(objective, objective.token_loss)
        return unread
    return objective


class _NoGradient:
    """Cross-entropy per token without gradient; without the head, where no loss's gradient asks for its value."""

    def __init__(self, objective: Objective, readings: HeadReadings) -> None:
        # A placement that knows its shares beforehand weighs losses by constants; extra terms may do anything.
        self.constant = not objective.extras and objective.placement.share(1, 2) is not None
        self.readings = readings

    def __call__(
        self, head: Head, features: Float[Tensor, "batch seq dim"], labels: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq"]:
        nothing: Tensor = wide(features[..., 0]) * 0
        if self.constant:
            return nothing
        return self.readings.value(head, features, labels) + nothing


def _shows_no_loss(states: Sequence[LoopState], objective: Objective, labels: Tensor) -> bool:
    """Whether the first tokens that count have a loss of exactly 0 at every exit that is read."""
    counted = labels != IGNORE_INDEX
    with torch.no_grad():
        for state in states:
            if objective.placement.reads(state.loop, state.context.loops):
                few, targets = state.features()[counted][None, :FEW], labels[counted][None, :FEW]
                if bool((chunked_cross_entropy(state.model.head, few, targets) > 0).any()):
                    return False
    return True
