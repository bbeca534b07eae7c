"""Conditions against each other at every loop: paired by seed and by window, at matched inference depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from loopscope.evaluation.compare.condition import Condition, by_place
from loopscope.evaluation.statistics.paired import PairedMean, paired_mean

SEPARATED = 0.05
"""Corrected p-values below this separate two conditions, where the interval is also without 0."""


@dataclass(frozen=True)
class PairedDifference:
    """One paired difference before correction: `other` at `other_loop` minus `one` at `loop`, in bits per byte."""

    one: str
    other: str
    loop: int
    other_loop: int
    difference: PairedMean
    seeds: int


def pairwise(conditions: Sequence[Condition]) -> list[PairedDifference]:
    """Return the paired difference of every two conditions at every loop that both have."""
    return [
        paired_difference(one, loop, other, loop)
        for one, other in combinations(conditions, 2)
        for loop in range(1, min(one.loops, other.loops) + 1)
    ]


def paired_difference(one: Condition, loop: int, other: Condition, other_loop: int) -> PairedDifference:
    """Return the paired difference of `other` at one loop minus `one` at another, over the same seeds and windows.

    Where windows differ (another tokenizer, another length), equal parts of the text are paired instead: as many as the
    one with fewer windows has.
    """
    assert one.seeds == other.seeds, "conditions are compared over seeds that both have"
    windows = [one.windows(loop), other.windows(other_loop)]
    parts = min(values.shape[1] for values in windows)
    first, second = (by_place(values, parts) for values in windows)
    difference = paired_mean(second - first, one.weights())
    return PairedDifference(one.name, other.name, loop, other_loop, difference, len(one.seeds))


def is_separated(difference: PairedMean, corrected: float | None) -> bool:
    """Return whether a difference stands after correction: p below `SEPARATED`, and 0 outside its interval."""
    low, high = difference.interval.low, difference.interval.high
    if corrected is None or low is None or high is None:
        return False
    return corrected < SEPARATED and not low <= 0 <= high
