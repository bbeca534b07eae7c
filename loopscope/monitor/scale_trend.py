"""Where a run's scale is going: what its training has made of it, carried on to twice the steps.

Over each doubling of the steps the logarithm of the scale changes by `GOES_ON` of what it did over the doubling before.
That, and how far from it runs end up, was fitted on trained runs and tested on others: `benchmarks/scale_trend.py`,
docs/results. It holds while nothing else changes: the learning rate, the depth, the objective.
"""

import math
from collections.abc import Sequence

from loopscope.results import ScaleTrend

GOES_ON = 0.45
"""Share of the last doubling's change that the next one brings."""
RESTING_SPREAD = 0.172
"""Half the 80 % interval's width in the logarithm, of a scale that stood still."""
SPREAD_OF_CHANGE = 0.086
"""What is added to it per unit of the last doubling's change."""
SMOOTHED = 0.9
"""Points from this share of a step on count as of that step: one batch's scale varies by a few percent."""
TURNED_BACK = 0.05
"""Change of the logarithm, either way, from which a scale has turned: batches alone make less."""
FEWEST_STEPS = 100
"""Below this a run has hardly left its start, and nothing is foretold."""

ScaleHistory = Sequence[tuple[int, Sequence[float]]]
"""(step, mean L2 norm of every loop), in order."""


def scale_trend(history: ScaleHistory) -> ScaleTrend | None:
    """Return where the scale over all loops is going.

    None where too little was logged, where it is not finite, or where it has turned within the last doubling.
    """
    sizes = [(step, over_loops(norms)) for step, norms in history if len(norms)]
    if not sizes or sizes[-1][0] < FEWEST_STEPS:
        return None
    last = sizes[-1][0]
    half, now = size_at(sizes, last // 2), size_at(sizes, last)
    if half is None or now is None:
        return None
    middle = size_at(sizes, round(last / math.sqrt(2)))
    if middle is not None and _has_turned(half, middle, now):
        return None
    on, spread = next_change(math.log(now / half))
    return ScaleTrend(last, half, now, *(now * math.exp(on + side * spread) for side in (0, -1, 1)))


def _has_turned(half: float, middle: float, now: float) -> bool:
    """Whether the second half of a doubling went back on the first."""
    before, since = math.log(middle / half), math.log(now / middle)
    return before * since < 0 and min(abs(before), abs(since)) > TURNED_BACK


def next_change(moved: float) -> tuple[float, float]:
    """Return what the next doubling of the steps brings, and half of its 80 % interval; all of them logarithms.

    Args:
        moved: what the last doubling brought.
    """
    return GOES_ON * moved, RESTING_SPREAD + SPREAD_OF_CHANGE * abs(moved)


def over_loops(norms: Sequence[float]) -> float:
    """The L2 norm over all loops: the root of the mean square of theirs."""
    return math.sqrt(math.fsum(norm * norm for norm in norms) / len(norms))


def size_at(sizes: Sequence[tuple[int, float]], step: int) -> float | None:
    """Return the geometric mean of the sizes logged up to a step, from `SMOOTHED` of it on; None without one."""
    near = [size for at, size in sizes if SMOOTHED * step <= at <= step]
    if not near or not all(math.isfinite(size) and size > 0 for size in near):
        return None
    return math.exp(math.fsum(map(math.log, near)) / len(near))
