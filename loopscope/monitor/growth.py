"""What counts as a scale that grows: a line fitted to the scales that the monitor measured. Memory: none of its own."""

from math import isfinite

from loopscope.audit.expansion import fit

RUNAWAY_GROWTH = 0.5
"""Fitted growth of the last loop's scale, relative to the start, from which it counts as growing. A slice's
scale varies by a few percent from batch to batch; a runaway one doubles within tens of steps."""
FEWEST = 3
"""Checks before a growth is fitted. As many come whatever they cost, and a verdict with the last of them."""
STILL = 0.1
"""Fitted growth of the later half of the checks, relative to that half's start, below which a scale has settled: the
first steps take many models from their initialisation to a scale that they keep, and that is no runaway."""


def growth(sizes: list[tuple[int, float]]) -> float:
    """Return the fitted growth of (step, scale), over all of them or their later half, relative to the first scale.

    The larger of the two, so that a scale that settles first and runs away later is noticed. 0 where there are
    too few to tell.
    """
    sizes = [(step, size) for step, size in sizes if isfinite(size)]
    spans = [sizes, sizes[len(sizes) // 2 :]]
    growths = []
    for span in spans:
        line = fit([float(step) for step, _ in span], [size for _, size in span])
        if len(span) >= FEWEST and line is not None and span[0][1] > 0:
            growths.append(line.slope * (span[-1][0] - span[0][0]) / span[0][1])
    return max(growths, default=0.0)


def rising(sizes: list[tuple[int, float]]) -> bool:
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
