"""What counts as a scale that grows, has settled, or has turned: a line fitted to a window of checks.

The window is the later half of the checks so far, the very first one left out: the way from the initialisation to the
scale that a model works at is no trend. It grows with the run, so a rate over it is one that has lasted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from loopscope.audit.expansion import fit

ScaleCurve = Sequence[tuple[int, float]]
"""(step, scale) of the last loop, in order."""

RUNAWAY_GROWTH = 0.5
"""Fitted growth over the window, relative to its start, from which a scale counts as growing. One that grows in
proportion to the steps doubles over a window, one that grows as their square root does not count. A slice's scale
varies by a few percent from batch to batch."""
FEWEST = 3
"""Checks that come whatever they cost, and a verdict with the last of them."""
WINDOW = 4
"""Fewest checks of a window."""
STILL = 0.1
"""Growth relative to the start, below which a scale has settled."""
STILL_SPREAD = 0.25
"""Largest less smallest scale of the window, relative to its start, up to which a scale has settled."""
TURNED = 0.8
"""Share of its peak below which a scale that falls has turned."""


@dataclass(frozen=True)
class Trend:
    """What the last loop's scale does over the window."""

    start: int  # step of the window's first check
    end: int
    first: float  # scale there
    last: float
    rate: float  # fitted, scale per step
    growth: float  # fitted, over the window: 1 is twice the first
    grows: bool  # by RUNAWAY_GROWTH, and still does in the window's later half
    settled: bool
    falls: bool

    def at(self, step: int) -> float:
        """Return the scale of a later step at this rate."""
        return self.last + self.rate * (step - self.end)


def trend(sizes: ScaleCurve) -> Trend | None:
    """Return what the scale does over the window; None where there are too few checks to tell."""
    later = [(step, size) for step, size in sizes if isfinite(size)][1:]
    if len(later) < WINDOW:
        return None
    seen = later[-max(WINDOW, (len(later) + 1) // 2) :]
    sized = [size for _, size in seen]
    line = fit([float(step) for step, _ in seen], sized)
    (start, first), (end, last) = seen[0], seen[-1]
    if line is None or first <= 0:
        return None
    growth = line.slope * (end - start) / first
    return Trend(
        start=start,
        end=end,
        first=first,
        last=last,
        rate=line.slope,
        growth=growth,
        grows=growth >= RUNAWAY_GROWTH and rising(seen),
        settled=abs(growth) < STILL and max(sized) - min(sized) <= STILL_SPREAD * first,
        falls=growth <= -STILL,
    )


def rising(sizes: ScaleCurve) -> bool:
    """Return whether the later half of these (step, scale) still grows, by `STILL` of its own start.

    Two are enough.
    """
    later = [(step, size) for step, size in sizes if isfinite(size)]
    later = later[len(later) // 2 :]
    if len(later) < 2:
        return False
    (first, start), (last, end) = later[0], later[-1]
    line = fit([float(step) for step, _ in later], [size for _, size in later])
    return (end - start if line is None else line.slope * (last - first)) >= STILL * start > 0
