"""The bootstrap over windows, and over seeds and windows at once.

`over_windows` is what stands in where there is one seed: its interval says how far the text could move a mean, nothing
of another seed. `over_both` resamples seeds and windows independently (both are crossed: every seed reads the same
windows), as Owen, "The pigeonhole bootstrap" (Annals of Applied Statistics, 2007). It is the slow reference to
`paired`, which has its variance in closed form; on its own it is far too narrow with three seeds.

Windows are drawn with their weights (labels that count), values sorted first, so that their order changes nothing.
Memory: `DRAWS` numbers, and 16 MB of counts at a time.
"""

import math

import numpy as np
from jaxtyping import Float

from loopscope.results import Interval
from loopscope.results.student_t import CONFIDENCE

DRAWS = 4000
_COUNTS = 2**21  # numbers of a chunk of counts


def over_windows(
    values: Float[np.ndarray, " windows"], weights: Float[np.ndarray, " windows"] | None = None, seed: int = 0
) -> Interval:
    """Return the weighted mean over windows with its 95 % percentile interval.

    A single window, or values that are not finite, have a mean and no interval.

    Args:
        weights: of the windows (labels that count); None: all alike.
        seed: of the draws.
    """
    weights = np.ones_like(values) if weights is None else weights
    order = np.lexsort((weights, values))
    values, weights = values[order], weights[order]
    mean = float(np.average(values, weights=weights))
    if len(values) < 2 or not math.isfinite(mean):
        return Interval(mean)
    drawn = _means(values[None], weights, np.random.default_rng(seed), DRAWS)[0]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high))


def over_both(
    values: Float[np.ndarray, "seeds windows"],
    weights: Float[np.ndarray, " windows"] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Float[np.ndarray, " draws"]:
    """Return means of resampled seeds and, independently, resampled windows.

    Args:
        values: one per seed and window.
        weights: of the windows (labels that count); None: all alike.
        seed: of the draws.
        draws: how many means.
    """
    weights = np.ones(values.shape[1]) if weights is None else weights
    generator = np.random.default_rng(seed)
    per_seed = _means(values, weights, generator, draws)
    seeds = len(values)
    chosen = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    means: np.ndarray = (chosen.T * per_seed).sum(axis=0) / seeds
    return means


def _means(
    values: Float[np.ndarray, "seeds windows"],
    weights: Float[np.ndarray, " windows"],
    generator: np.random.Generator,
    draws: int,
) -> Float[np.ndarray, "seeds draws"]:
    """Each seed's weighted mean over `draws` resamples of the windows, the same for every seed."""
    windows = values.shape[1]
    size = max(1, _COUNTS // windows)
    parts = []
    for start in range(0, draws, size):
        counts = generator.multinomial(windows, np.full(windows, 1 / windows), size=min(size, draws - start))
        drawn = counts * weights
        parts.append((values @ drawn.T) / drawn.sum(axis=1))
    return np.concatenate(parts, axis=1)
