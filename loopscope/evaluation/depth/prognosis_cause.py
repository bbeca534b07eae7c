"""Why more loops do what they do, in words: what scale and direction did in the last loops that were looked at."""

import math
from collections.abc import Sequence

from loopscope.evaluation.depth.prognosis_rule import TURNS_BACK, descends
from loopscope.results import ForetoldDepth, LoopSigns
from loopscope.results.prognoses import UNCHANGED

SCALE_HOLDS = 0.01
"""Change of scale over one loop that counts as none: 1 %."""
RESTS = 1e-3
"""Step of the direction, over its length, that counts as none."""
LOGARITHM = (-2.0, -0.5)
"""Powers of the loop number between which a step counts as falling like 1/k."""
LONG_WAY = 2.0
"""Length of a way of the direction, over its own, up to which it counts as coming to rest."""
EXPANDS = 0.2
"""Power of the loop number above which steps count as growing."""
SLACKENS = 0.3
"""Over the loop number: by which share a growth by the same factor may seem to slacken. Growth by the same amount
slackens by 1 over it."""
LARGEST_SQUARED = 0.5 * math.log(3.4e38)
"""Log of the largest number whose square fp32 holds: a norm squares what it divides by."""


def cause(
    signs: Sequence[LoopSigns], trained: int, blind: bool | None, at: Sequence[ForetoldDepth], level: float
) -> str:
    """Return sentences: what scale does and whether the readout reads it, how the direction turns, what is foretold.

    Args:
        signs: of loops 1 to K + 2.
        trained: K.
        blind: whether the readout divides by the state's size; None where it is not known.
        at: what is foretold.
        level: how often its intervals are meant to hold what comes.
    """
    sentences = [_of_scale(signs, trained, blind), _of_direction(signs, trained), _in_numbers(at, level)]
    if descends(signs, trained):
        sentences.insert(2, _of_descent(signs, trained))
    elif _power(signs, trained) > EXPANDS and all(row.change <= math.log1p(UNCHANGED) for row in at):
        sentences.append(
            "That follows steps as a power of the loop's number; one that grows by the same factor in every loop comes "
            "to more, so measure it before you rely on it."
        )
    return " ".join(sentences)


def _of_scale(signs: Sequence[LoopSigns], trained: int, blind: bool | None) -> str:
    change = _growth(signs, trained)
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
    if signs[trained + 1].straightness < TURNS_BACK:
        return f"{at}, back the way it came: what even and odd depths say differs."
    power = _power(signs, trained)
    if power > EXPANDS:
        return f"{at} and faster with every loop: the map expands it."
    if power > LOGARITHM[1]:
        return f"{at}, hardly less than a loop before: it goes on turning."
    each = f"{at}, {last / before:.2f} of the step before"
    if not grows(signs, trained):
        left = last * last / (before - last)  # of a way whose steps go on falling by the same factor
        rests = left < LONG_WAY
        return (
            f"{each}: where that goes on, it comes to rest."
            if rests
            else f"{each}: it goes on turning for long."
        )
    if power >= LOGARITHM[0]:
        return f"{at}, and steps fall like 1/k, as a growing scale makes them: what they add up to goes as a logarithm."
    return f"{each}: steps fall faster than a growing scale alone makes them."


def _of_descent(signs: Sequence[LoopSigns], trained: int) -> str:
    before, last = signs[trained], signs[trained + 1]
    return (
        f"It is on its way down: loop {trained + 2} gained {before.cross_entropy - last.cross_entropy:.3f} nats by a "
        f"step of {last.divergence:.2g} nats of KL, so that it fell short of where the text is."
    )


def _power(signs: Sequence[LoopSigns], trained: int) -> float:
    """Of the loop's number, with which the direction's last steps go; none where it rests."""
    before, last = signs[trained].angular_step, signs[trained + 1].angular_step
    if last <= RESTS:
        return -math.inf
    return math.log(last / before) / math.log((trained + 2) / (trained + 1)) if before > 0 else math.inf


def grows(signs: Sequence[LoopSigns], trained: int) -> bool:
    """Return whether the scale grows past the trained depth."""
    return _growth(signs, trained) > SCALE_HOLDS


def _growth(signs: Sequence[LoopSigns], trained: int) -> float:
    """By which share of itself the scale grows in a loop past the trained depth."""
    return math.expm1((signs[trained].radial_step + signs[trained + 1].radial_step) / 2)


def last_in_fp32(signs: Sequence[LoopSigns], trained: int) -> int | None:
    """Return the loop up to which fp32 holds the square of a scale that grows by the same factor in every loop.

    None where it does not: one that grows by the same amount takes ever smaller factors.
    """
    before, last = signs[trained].radial_step, signs[trained + 1].radial_step
    if last <= math.log1p(SCALE_HOLDS) or last < before * (1 - SLACKENS / (trained + 2)):
        return None
    return trained + 2 + int((LARGEST_SQUARED - math.log(signs[-1].rms)) / last)


def _in_numbers(at: Sequence[ForetoldDepth], level: float) -> str:
    told = [f"{row.change:+.3f} nats at {row.loops} loops ({row.low:+.3f} to {row.high:+.3f})" for row in at]
    return f"Foretold: {', '.join(told)}; {level:.0%} intervals."
