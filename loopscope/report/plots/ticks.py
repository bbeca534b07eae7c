"""Ticks of logarithmic axes, and powers of ten in words: the same on the page and in PNG."""

import math
from collections.abc import Sequence

from loopscope.report.plots.figure import spans_decades


def log_ticks(values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Return places and names of ticks on a logarithmic axis that holds these values, all above zero.

    Whole decades where there are several, at most nine of them; 1, 2 and 5 of each within one or two. Up to a million a
    number is written out, beyond it is a power of ten: letters for thousands (k, M … Y) would be read as units.
    """
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    if not spans_decades(values):
        return tuple((n * 10.0**k, tick_name(n * 10.0**k)) for k in range(first, last + 1) for n in (1, 2, 5))
    decades = range(first, last + 1, 1 + (last - first) // 9)
    return tuple((10.0**k, tick_name(10.0**k)) for k in decades)


def tick_name(value: float) -> str:
    """Write a tick of a logarithmic axis: `0.05`, `1`, `20,000`, `10¹²`, `2·10¹²`."""
    if value <= 0:
        return ""
    if 1e-3 <= value < 1e7:
        return f"{value:,.0f}" if value >= 1 else f"{value:.6g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10.0**exponent)
    return power_of_ten(exponent) if digit == 1 else f"{digit}·{power_of_ten(exponent)}"


def power_of_ten(exponent: int) -> str:
    """Write a power of ten with its exponent raised: `10⁻⁴`."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
