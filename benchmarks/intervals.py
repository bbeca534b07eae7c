"""How often 95 % intervals of a paired difference hold the truth, by simulation: why comparisons use the one they do.

A difference between two conditions is drawn as truth + effect of the seed + effect of the window + noise, in shares of
the variance of the mean from seeds alone to windows alone. Four intervals are then asked whether they hold the truth;
two of them also at the level 0.001, because a correction for many tests asks for small p-values:

percentiles   of the bootstrap over seeds and windows (Owen 2007)
t, seeds      Student's t over seed means: windows taken as fixed
Welch         one standard error of both, Welch-Satterthwaite degrees of freedom
squares       what `loopscope evaluate compare` uses: half-widths of seeds and windows added in squares

    python -m benchmarks.intervals
"""

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.environment import environment, finish, table
from loopscope.evaluation.statistics import Spread, over_both, spread
from loopscope.results.student_t import quantile

WINDOWS, NOISE = 100, 0.3
REPEATS, BOOTSTRAPS = 4_000, 400
SHARES = {
    "seeds alone": 1.0,
    "seeds, mostly": 0.9,
    "half each": 0.5,
    "windows, mostly": 0.1,
    "windows alone": 0.0,
}
METHODS = ("percentiles", "t, seeds", "Welch", "squares")
FALSE = ("Welch, 0.001", "squares, 0.001")


def draws(seeds: int, share: float, repeats: int) -> Iterator[np.ndarray]:
    """Differences [seeds windows] around 0; the variance of their mean is 1, `share` of it from seeds."""
    generator = np.random.default_rng(seeds)
    of_seed, of_window = math.sqrt(share * seeds), math.sqrt((1 - share) * WINDOWS)
    for _ in range(repeats):
        yield (
            of_seed * generator.standard_normal((seeds, 1))
            + of_window * generator.standard_normal(WINDOWS)
            + NOISE * generator.standard_normal((seeds, WINDOWS))
        )


def coverage(seeds: int, share: float) -> dict[str, float]:
    """Share of 95 % intervals that hold 0, by method; and of false findings at 0.001, as a multiple of 0.001."""
    held = dict.fromkeys(METHODS, 0)
    false = dict.fromkeys(FALSE, 0)
    for values in draws(seeds, share, REPEATS):
        found = spread(values)
        assert isinstance(found, Spread)
        distance = abs(found.mean)
        one, other = found.over_seeds**2, found.over_windows**2
        degrees = (one + other) ** 2 / (one**2 / (seeds - 1) + other**2 / (WINDOWS - 1))
        held["t, seeds"] += distance <= quantile(0.05, seeds - 1) * found.over_seeds
        held["Welch"] += distance <= quantile(0.05, int(degrees)) * math.sqrt(one + other)
        held["squares"] += distance <= found.half(0.05)
        false["Welch, 0.001"] += distance > quantile(0.001, int(degrees)) * math.sqrt(one + other)
        false["squares, 0.001"] += distance > found.half(0.001)
    for number, values in enumerate(draws(seeds, share, BOOTSTRAPS)):
        low, high = np.quantile(over_both(values, seed=number, draws=500), [0.025, 0.975])
        held["percentiles"] += low <= 0 <= high
    rates = {name: count / (BOOTSTRAPS if name == "percentiles" else REPEATS) for name, count in held.items()}
    return rates | {name: count / REPEATS / 0.001 for name, count in false.items()}


def main() -> None:
    """Print the table and one JSON line."""
    figures = {}
    rows = []
    for seeds in (3, 5, 10):
        for name, share in SHARES.items():
            found = coverage(seeds, share)
            figures[f"{seeds} seeds, {name}"] = found
            cells = [f"{found[method]:.1%}" for method in METHODS] + [
                f"{found[method]:.1f} ×" for method in FALSE
            ]
            rows.append([f"{seeds} seeds, variance from {name}", *cells])
    table(["coverage of 95 % intervals", *METHODS, *FALSE], rows)
    finish(
        {"benchmark": "intervals", "windows": WINDOWS, "repeats": REPEATS, "coverage": figures}, environment()
    )


if __name__ == "__main__":
    main()
