"""Numbers of evaluations in words: intervals, signed differences, percent."""

import math

from loopscope.report.study.table import TableCell, figures, number
from loopscope.results import Interval


def signed(value: float) -> str:
    """Write a number with its sign for a sentence: `+0.12`, `−3.4`, `0`."""
    if not math.isfinite(value):
        return "not finite"
    return _sign(value) + number(abs(value))


def signed_figures(value: float) -> str:
    """Write a number with its sign for a table: `+0.120`, `−3.40`, `0`."""
    return _sign(value) + figures(abs(value)) if math.isfinite(value) else "not finite"


def _sign(value: float) -> str:
    return "+" if value > 0 else "−" if value < 0 else ""


def percent(share: float) -> str:
    """Write a relative excess: `+0.4 %`; from twice on, `× 3.1`."""
    if not math.isfinite(share):
        return "not finite"
    if share >= 1:
        return f"× {number(1 + share)}"
    size = abs(100 * share)
    if size < 0.05:
        return "0 %"
    return ("+" if share > 0 else "−") + (f"{size:.1f} %" if size < 9.95 else f"{size:.0f} %")


def interval_text(interval: Interval) -> str:
    """Write an interval: `1.2 to 1.4`; nothing where there is none."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{figures(interval.low)} to {figures(interval.high)}"


def cell(interval: Interval, plus: bool = False) -> TableCell:
    """Return a table's cell: a mean with its interval below."""
    if not plus:
        text, below = figures(interval.mean), interval_text(interval)
    else:
        text = signed_figures(interval.mean)
        ends = (interval.low, interval.high)
        below = "" if None in ends else " to ".join(signed_figures(end) for end in ends if end is not None)
    return TableCell(text, interval.mean if math.isfinite(interval.mean) else math.inf, interval=below)


def finite_ends(interval: Interval) -> tuple[float, float] | None:
    """Return both ends of an interval, where there are two that can be drawn; else None."""
    low, high = interval.low, interval.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return low, high
