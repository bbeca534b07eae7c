"""Conditions against each other at every loop: paired by seed and by window, at matched inference depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from loopscope.evaluation.compare.condition import Condition
from loopscope.evaluation.statistics.paired import Paired, paired

SEPARATED = 0.05
"""Corrected p-values below this separate two conditions, where the interval is also without 0."""


@dataclass(frozen=True)
class Tested:
    """One paired difference before correction: `other` at `other_loop` minus `one` at `loop`, in bits per byte."""

    one: str
    other: str
    loop: int
    other_loop: int
    found: Paired
    seeds: int


def pairwise(conditions: Sequence[Condition]) -> list[Tested]:
    """Every pair at every loop that both have."""
    return [
        tested(one, loop, other, loop)
        for one, other in combinations(conditions, 2)
        for loop in range(1, min(one.loops, other.loops) + 1)
    ]


def tested(one: Condition, loop: int, other: Condition, other_loop: int) -> Tested:
    """`other` at one loop minus `one` at another, over the same seeds and windows."""
    assert one.seeds == other.seeds, "conditions are compared over seeds that both have"
    found = paired(other.windows(other_loop) - one.windows(loop), one.weights())
    return Tested(one.name, other.name, loop, other_loop, found, len(one.seeds))


def is_separated(found: Paired, corrected: float | None) -> bool:
    """Whether a difference stands after correction."""
    low, high = found.interval.low, found.interval.high
    if corrected is None or low is None or high is None:
        return False
    return corrected < SEPARATED and not low <= 0 <= high
