"""From signs to a fate: how far the predictions will still move, what that does to the loss, and how sure that is.

Every exit's prediction is a step away from the one before: the root of their KL divergence is its length. Steps are
followed from K + 2 on along a power of the loop number (a step that falls as 1/k is what a blind, growing scale leaves
of it; a faster fall is a contraction, a rise an expansion). The loss changes by its slope along that way, and by the KL
divergence of the way's end, which is what any move away from a trained prediction costs. Two coefficients, one of each,
were fitted on trained models (`prognosis_constants`, made by `python -m benchmarks.fates --fit`).

One case stands apart: a model on its way down (`descends`), asked before its own depth, say. A step to where the text
is gains its own KL divergence; one that gains more falls short, and further ones have the rest to gain.

An interval spans a second way of following, too (`steady`): the whole power, and a parabola's curve past K + 2 in place
of the cost of the whole way. It tells fewer fates right, and is nearer where the first is far off, in models that were
trained otherwise than those fitted on.

It has two more parts: how far such models were from what was foretold, and chance. Two texts of N tokens differ:
the log-likelihood of a token changes with a variance of about 2 d where predictions move by d nats of KL, so that a
mean over N tokens is off by about √(2 d / N).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

from loopscope.results import ForetoldDepth, LoopSigns
from loopscope.results.prognoses import UNCHANGED

UNIT = math.log1p(UNCHANGED)
"""Nats that count as no change: the unit of intervals."""
PERSISTENCE = 0.5
"""Share of the power that K + 1 and K + 2 show which is followed: growth and decay both slacken. Chosen by leaving
conditions out of the fit in turn (0, 0.5, 0.75 and 1 were tried)."""
STEEPEST = 12.0
"""Largest power of the loop number that is followed, up or down."""
LONGEST_STEP = 2.0
"""No step of a prediction is longer: a KL divergence of 4 nats."""
FARTHEST = 10.0
"""Nats of KL divergence that a way leads to at most."""
TURNS_BACK = -0.5
"""Cosine of two steps below which the second undoes the first."""
NO_STEP = 1e-4
"""Step of a prediction that counts as none (1e-8 nats of KL): two that rounding makes have any ratio to each other."""

DESCENT = 1.5
"""What a step gains, over its KL divergence, from which it falls short of where the text is."""
NO_LONGER = 1.2
"""KL divergence of a step over that of the one before up to which steps do not grow."""
DESCENT_SPREAD = 0.36
"""Half of an interval that is meant to hold 80 %, as a signed logarithm, for models on their way down: of the 32 such
cases that committed runs make, 27 of them asked at their first loop (docs/results)."""


@dataclass(frozen=True)
class Constants:
    """What was fitted for one depth: coefficients of `movements`, and how wide an interval is."""

    coefficients: Mapping[str, float]
    steady: Mapping[str, float]  # coefficients of the second way of following
    spread: float  # share of the width that does not grow with movement, see `foretell`
    width: float  # quantile of what the fit left, over the expected spread
    level: float  # of that quantile


def movements(signs: Sequence[LoopSigns], trained: int, loops: int, steady: bool = False) -> dict[str, float]:
    """Return what a model is expected to do between the trained depth and `loops`, before any fit. In nats.

    Args:
        signs: of loops 1 to K + 2.
        trained: K.
        loops: the depth that is asked about.
        steady: follow the whole power, and count what the way costs past K + 2 beyond its slope there.

    Returns:
        `loss`: the change of the loss, followed along the way of the predictions. `moved`: the KL divergence between
        both ends of that way, as long as its steps are and as straight as the state goes; of a steady one, what a
        parabola of that divergence adds to the slope.
    """
    at = {row.loop: row for row in signs}
    last, one, two = at[trained], at[trained + 1], at[trained + 2]
    known = [_step(row) for row in (one, two)][: loops - trained]
    if len(known) == 2 and two.straightness < TURNS_BACK:
        known = [math.fsum(known) / 2] * 2  # a divergence there and one back differ, the way between does not
    later = _followed(known, trained, loops, 1.0 if steady else PERSISTENCE)
    moved = _squared_length([*known, *later], two.straightness)
    if loops <= trained + 2:
        change = at[loops].cross_entropy - last.cross_entropy
    else:
        slope = (two.cross_entropy - one.cross_entropy) / max(known[1], NO_STEP)
        turned = min(two.straightness, 0.0)  # a way that goes to and fro leads nowhere
        along = [step * turned**place if turned else step for place, step in enumerate(later, start=1)]
        change = two.cross_entropy - last.cross_entropy + slope * math.fsum(along)
        if steady:
            so_far = _squared_length(known, two.straightness)
            last_step = so_far - known[0] ** 2
            moved = max(moved - so_far - last_step * math.fsum(along) / max(known[1], NO_STEP), 0.0)
    return {"loss": change, "moved": min(moved, FARTHEST)}


def _step(row: LoopSigns) -> float:
    length = math.sqrt(max(row.divergence, 0.0))
    return length if length > NO_STEP else 0.0


def _followed(known: Sequence[float], trained: int, loops: int, persistence: float) -> list[float]:
    """Steps of loop K + 3 to `loops`, along a share of the power of the loop number that K + 1 and K + 2 show."""
    if loops <= trained + 2 or known[1] <= 0:
        return []
    ratio = known[1] / known[0] if known[0] > 0 else 1.0
    power = persistence * math.log(ratio) / math.log((trained + 2) / (trained + 1))
    power = min(max(power, -STEEPEST), STEEPEST)
    return [
        min(known[1] * (loop / (trained + 2)) ** power, LONGEST_STEP)
        for loop in range(trained + 3, loops + 1)
    ]


def _squared_length(steps: Sequence[float], straight: float) -> float:
    """How far steps lead, squared, where two have the cosine `straight` to the power of the loops between them."""
    reached = along = 0.0  # along: what the steps so far add to the direction of the next
    for step in steps:
        along *= straight
        reached += step * step + 2 * step * along
        along += step
    return max(reached, 0.0)


def foretell(
    signs: Sequence[LoopSigns], trained: int, loops: int, constants: Constants, tokens: int | None = None
) -> ForetoldDepth:
    """Return the change of the loss at `loops` with its interval; up to K + 2 the change is the measured one.

    What was fitted is symmetric in asinh(change / 1 % of perplexity): in nats where changes are small, else a factor.
    Chance is added to it as independent of it. No loss is foretold that is below 0.

    Args:
        signs: of loops 1 to K + 2.
        trained: K.
        loops: the depth that is asked about.
        constants: fitted for that depth.
        tokens: that the signs were measured on; None: as if on all that there are.
    """
    ways = _ways(signs, trained, loops, constants)
    ends = [_interval(*way, constants.level, tokens) for way in ways]
    told = ways[0][0], min(low for low, _ in ends), max(high for _, high in ends)
    least = -max(signs[trained - 1].cross_entropy, 0.0)
    return ForetoldDepth(loops, *(max(end, least) for end in told))


def _ways(
    signs: Sequence[LoopSigns], trained: int, loops: int, constants: Constants
) -> list[tuple[float, float, float]]:
    """What every way of following comes to, the foretold one first: change, KL divergence, half of its interval."""
    moved = movements(signs, trained, loops)
    if loops <= trained + 2:
        return [(moved["loss"], moved["moved"], half_width(moved, constants))]
    if descends(signs, trained):
        return [(descent(signs, trained), moved["moved"], DESCENT_SPREAD)]
    steady = movements(signs, trained, loops, steady=True)
    return [
        (weighed(way, coefficients), way["moved"], half_width(way, constants))
        for way, coefficients in ((moved, constants.coefficients), (steady, constants.steady))
    ]


def weighed(moved: Mapping[str, float], coefficients: Mapping[str, float]) -> float:
    """Return the change of the loss that movements come to, in nats."""
    return math.fsum(coefficients[name] * moved[name] for name in coefficients)


def half_width(moved: Mapping[str, float], constants: Constants) -> float:
    """Return half of what was fitted of an interval, as a signed logarithm: the longer the way, the wider."""
    return constants.width * (constants.spread + signed_log(abs(moved["loss"]) + moved["moved"]))


def _interval(
    change: float, moved: float, half: float, level: float, tokens: int | None
) -> tuple[float, float]:
    """The ends of an interval in nats, with chance."""
    middle = signed_log(change)
    fitted = [UNIT * math.sinh(end) - change for end in (middle - half, middle + half)]
    chance = 0.0 if tokens is None else by_chance(moved, tokens, level)
    low, high = (change + math.copysign(math.hypot(end, chance), end) for end in fitted)
    return low, high


def descends(signs: Sequence[LoopSigns], trained: int) -> bool:
    """Return whether both loops past the trained depth gained more than they moved, by steps that do not grow.

    And half a percent of perplexity each.
    """
    rows = signs[trained - 1 : trained + 2]
    if rows[2].divergence > NO_LONGER * rows[1].divergence:  # an expanding map may gain at first
        return False
    return all(
        before.cross_entropy - later.cross_entropy > max(DESCENT * later.divergence, UNIT / 2)
        for before, later in pairwise(rows)
    )


def descent(signs: Sequence[LoopSigns], trained: int) -> float:
    """Return the change of the loss that a model on its way down comes to, in nats.

    What it was by K + 2, and what is left: along a straight way the loss is a parabola, whose curve is the divergence
    d. Where a step has gained R d, (R - 1)² d / 4 are left. No more than what was gained so far.
    """
    last, one, two = signs[trained - 1 : trained + 2]
    gained = last.cross_entropy - two.cross_entropy
    step = max(two.divergence, NO_STEP**2)
    left = step * ((one.cross_entropy - two.cross_entropy) / step - 1) ** 2 / 4
    return -gained - min(left, gained)


def by_chance(moved: float, tokens: int, level: float) -> float:
    """Return how far a change of the mean loss is from that of all texts at most, with probability `level`, in nats.

    Args:
        moved: KL divergence between the predictions before and after the change.
        tokens: that it is a mean over.
        level: between 0 and 1.
    """
    return NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(2 * moved / tokens)


def signed_log(change: float) -> float:
    """Return asinh of a change in units of 1 % of perplexity: itself while it is small, then its signed logarithm."""
    return math.asinh(change / UNIT)
