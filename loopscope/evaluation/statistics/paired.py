"""A mean difference with its interval and its p-value, from seeds × windows of paired values.

Two things are samples: the seeds (few) and the windows of text (many), and every seed reads the same windows. A
bootstrap over both (`bootstrap.over_both`) has the variance `var(seed means)/S + var(window means)/W` and the noise of
single windows once more. Its percentiles are far too narrow for three seeds, so each of the two parts, seeds counted
with S - 1, gets the quantile of its own Student's t, and half-widths add in squares:

    half² = (t[S-1] · SE over seeds)² + (t[W-1] · SE over windows)²

This is exact where either part dominates and too wide, never too narrow, between (the noise of single windows is in
both parts). The p-value is the level whose interval just touches 0. Windows count as independent: neighbouring windows
of one document are not quite, so read the part over windows as a lower bound. `benchmarks/intervals.py` measures the
coverage.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from loopscope.results import Interval
from loopscope.results.student_t import CONFIDENCE, SEEDS_NEEDED, quantile

SMALLEST_P = 1e-12
"""p-values end here: nothing smaller is told apart."""


@dataclass(frozen=True)
class PairedMean:
    """A paired mean difference: its interval, and its two-sided p-value where there is one."""

    interval: Interval
    p: float | None  # two-sided


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and windows, with the standard error that each of them gives it."""

    mean: float
    over_seeds: float
    over_windows: float
    seeds: int
    windows: int

    def half(self, outside: float) -> float:
        """Return the half-width of the interval that leaves out the truth with probability `outside`."""
        return math.hypot(
            quantile(outside, self.seeds - 1) * self.over_seeds,
            quantile(outside, self.windows - 1) * self.over_windows,
        )

    def interval(self) -> Interval:
        """Return the 95 % interval."""
        half = self.half(1 - CONFIDENCE)
        return Interval(self.mean, self.mean - half, self.mean + half)

    def p(self) -> float:
        """Return the p-value: the level whose interval just touches 0, by bisection over its logarithm."""
        if self.over_seeds == 0 and self.over_windows == 0:
            return 1.0 if self.mean == 0 else SMALLEST_P
        if self.half(SMALLEST_P) <= abs(self.mean):
            return SMALLEST_P
        low, high = math.log(SMALLEST_P), 0.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.half(math.exp(middle)) > abs(self.mean) else (low, middle)
        return math.exp((low + high) / 2)


def paired_mean(
    differences: Float[np.ndarray, "seeds windows"], weights: Float[np.ndarray, " windows"] | None = None
) -> PairedMean:
    """Return the mean over seeds and windows, its 95 % interval and its two-sided p-value.

    Below three seeds or two windows: the mean alone.

    Args:
        weights: of the windows (labels that count); None: all alike. A window of weight 0 is left out.
    """
    result = spread(differences, weights)
    if isinstance(result, float):
        return PairedMean(Interval(result), None)
    return PairedMean(result.interval(), result.p())


def spread(
    differences: Float[np.ndarray, "seeds windows"], weights: Float[np.ndarray, " windows"] | None = None
) -> Spread | float:
    """Return what the interval rests on, or the mean alone where there is too little for one.

    Args:
        differences: paired values, one per seed and window.
        weights: of the windows (labels that count); None: all alike. A window of weight 0 is left out.
    """
    if weights is not None:
        kept = weights > 0
        differences, weights = differences[:, kept], weights[kept]
    seeds, windows = differences.shape
    shares = np.full(windows, 1 / windows) if weights is None else weights / weights.sum()
    of_seeds = differences @ shares
    mean = float(of_seeds.mean())
    if seeds < SEEDS_NEEDED or windows < 2 or not math.isfinite(mean):
        return mean
    of_windows = differences.mean(axis=0)
    # Of a ratio of sums; the standard deviation over sqrt(windows) where weights are alike.
    over_windows = math.sqrt(float((shares**2 * (of_windows - mean) ** 2).sum()) * windows / (windows - 1))
    return Spread(mean, float(of_seeds.std(ddof=1)) / math.sqrt(seeds), over_windows, seeds, windows)
