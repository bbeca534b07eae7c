"""Why more loops do what they do, in words: what scale and direction did in the last loops that were looked at."""

import math
from collections.abc import Sequence

from loopscope.results import ForetoldDepth, LoopSigns

SCALE_HOLDS = 0.01
"""Change of scale over one loop that counts as none: 1 %."""
RESTS = 1e-3
"""Step of the direction, over its length, that counts as none."""
LOGARITHM = (-2.0, -0.5)
"""Powers of the loop number between which a step counts as falling like 1/k."""


def cause(signs: Sequence[LoopSigns], trained: int, blind: bool | None, at: Sequence[ForetoldDepth]) -> str:
    """Return sentences: what scale does and whether the readout reads it, how the direction turns, what is foretold.

    Args:
        signs: of loops 1 to K + 2.
        trained: K.
        blind: whether the readout divides by the state's size; None where it is not known.
        at: what is foretold.
    """
    return " ".join([_of_scale(signs, trained, blind), _of_direction(signs, trained), _in_numbers(at)])


def _of_scale(signs: Sequence[LoopSigns], trained: int, blind: bool | None) -> str:
    change = math.expm1((signs[trained].radial_step + signs[trained + 1].radial_step) / 2)
    if abs(change) <= SCALE_HOLDS:
        return f"Past loop {trained} the scale stays (RMS {signs[-1].rms:.3g})."
    way = f"Past loop {trained} the scale {'grows' if change > 0 else 'shrinks'} by {abs(change):.0%} a loop"
    if blind is None:
        return f"{way}."
    if blind:
        return f"{way}; the readout divides by it, so that alone does nothing to an exit."
    before = signs[trained - 1].radial_step
    held = abs(math.expm1(before)) <= abs(change) / 2
    only = ": it is held at the trained depth only" if held else ""
    return f"{way}, and the readout reads it{only}."


def _of_direction(signs: Sequence[LoopSigns], trained: int) -> str:
    before, last = signs[trained].angular_step, signs[trained + 1].angular_step
    at = f"The direction turns by {last:.2g} of its length at loop {trained + 2}"
    if last <= RESTS:
        return f"{at}: it rests."
    power = math.log(last / before) / math.log((trained + 2) / (trained + 1)) if before > 0 else math.inf
    if power > 0.2:
        return f"{at} and faster with every loop: the map expands it."
    if power > LOGARITHM[1]:
        return f"{at}, hardly less than a loop before: it goes on turning."
    if power >= LOGARITHM[0]:
        return f"{at}, and steps fall like 1/k, as a growing scale makes them: what they add up to goes as a logarithm."
    return f"{at}, and steps die out fast (each {last / before:.2f} of the one before): the map contracts it."


def _in_numbers(at: Sequence[ForetoldDepth]) -> str:
    told = [f"{row.change:+.3f} nats at {row.loops} loops ({row.low:+.3f} to {row.high:+.3f})" for row in at]
    return f"Foretold: {', '.join(told)}."
