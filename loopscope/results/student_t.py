"""Student's t for a whole number of degrees of freedom, and what it says of a mean over seeds.

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


def over_seeds(values: Sequence[float], least: int = 2) -> Interval:
    """Return the mean and 95 % interval of Student's t over seeds.

    No interval below `least` seeds, or for values that are not finite.
    """
    count = len(values)
    mean = sum(values) / count
    if count < least or not math.isfinite(mean):
        return Interval(mean)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = quantile(1 - CONFIDENCE, count - 1) * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)
