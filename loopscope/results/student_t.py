"""Intervals over seeds: Student's t for a whole number of degrees of freedom, and what it says of a mean.

One rule for pages, terminals and records: a mean over fewer than `SEEDS_NEEDED` seeds has no interval. `over_seeds` is
the one function that makes intervals over seeds, `over_seeds_of` applies it to a quantity by name.

The distribution function is a finite sum (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3-4); the
quantile inverts it, by bisection from three degrees on. From `NORMAL_FROM` degrees on the normal distribution stands
in: its 97.5 % quantile is then less than 0.7 % too small.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

from loopscope.results import Interval

NORMAL_FROM = 200
CONFIDENCE = 0.95
SEEDS_NEEDED = 3
"""Below this a spread over seeds is a guess: no interval, no p-value."""

LOG_SCALE = frozenset({"perplexity", "l2_norm", "rms", "drift"})
"""Quantities above zero that are compared in factors: geometric mean, interval of the logarithms."""
BOUNDS = {
    "loss": (0.0, math.inf),
    "bits_per_byte": (0.0, math.inf),
    "accuracy": (0.0, 1.0),
    "exact_match": (0.0, 1.0),
    "mean_loops": (1.0, math.inf),
}
"""Quantities on a linear scale, with the values that they can have. A loss is the logarithm of a perplexity: its
interval is that of the perplexity."""


def tail(t: float, degrees: int) -> float:
    """Return the probability that a variable of Student's t is further from 0 than `t`, on either side."""
    if degrees >= NORMAL_FROM:
        return 2 * NormalDist().cdf(-abs(t))
    angle = math.atan(abs(t) / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for number in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (number - 1) / number
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1 - inside)


@lru_cache(maxsize=4096)
def quantile(outside: float, degrees: int) -> float:
    """Return the t beyond which, on either side, lies the probability `outside`."""
    if degrees >= NORMAL_FROM:
        return -NormalDist().inv_cdf(outside / 2)
    if degrees == 1:
        return 1 / math.tan(math.pi * outside / 2)
    if degrees == 2:
        return (1 - outside) * math.sqrt(2 / (outside * (2 - outside)))
    low, high = 0.0, 1.0
    while tail(high, degrees) > outside:
        low, high = high, 4 * high
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, degrees) > outside else (low, middle)
    return (low + high) / 2


def over_seeds(
    values: Sequence[float], log: bool = False, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """Return the mean over seeds and its 95 % interval of Student's t.

    No interval from fewer than `SEEDS_NEEDED` seeds, or from values that are not finite.

    Args:
        values: one per seed, at least one.
        log: for what is above zero and compared in factors: the geometric mean, with the interval of the logarithms,
            which never reaches zero. Where a value is zero the mean is too, and there is no interval.
        bounds: the values that the quantity can have; the interval is cut to them.
    """
    if log and all(0 < value < math.inf for value in values):
        logs = _linear([math.log(value) for value in values])
        ends = (None if end is None else _exp(end) for end in (logs.low, logs.high))
        return Interval(float(values[0]) if len(values) == 1 else _exp(logs.mean), *ends)
    if log:  # no factor leads to a zero, nor to what is not finite
        mean = sum(values) / len(values)
        return Interval(0.0 if math.isfinite(mean) else mean)
    made = _linear(values)
    if made.low is None or made.high is None:
        return made
    return Interval(made.mean, max(bounds[0], made.low), min(bounds[1], made.high))


def over_seeds_of(quantity: str, values: Sequence[float]) -> Interval:
    """Return the mean and interval over seeds of a quantity by its field's name (`perplexity`, `bits_per_byte`, …).

    Whatever is not in `LOG_SCALE` is linear, within its `BOUNDS` where it has some.
    """
    return over_seeds(values, quantity in LOG_SCALE, BOUNDS.get(quantity, (-math.inf, math.inf)))


def _linear(values: Sequence[float]) -> Interval:
    count = len(values)
    mean = sum(values) / count
    if count < SEEDS_NEEDED or not math.isfinite(mean):
        return Interval(mean)
    deviation = math.hypot(*(value - mean for value in values)) / math.sqrt(count - 1)
    half = quantile(1 - CONFIDENCE, count - 1) * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def _exp(value: float) -> float:
    return math.exp(min(value, 690.0))  # an end of an interval that overflows is drawn and kept as 1e299
