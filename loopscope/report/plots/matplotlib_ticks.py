"""Scales, ranges and ticks of matplotlib axes."""

from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.markers import TICKDOWN, TICKLEFT
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from loopscope.report.plots.figure import Figure
from loopscope.report.plots.ticks import tick_name

_SMALL, _THIN = 2.0, 0.6
"""Points along and across a tick without a number: matplotlib's own."""


def scale_axes(ax: Any, figure: Figure) -> None:
    """Give axes their scales, their ranges and their ticks."""
    if figure.log_x:
        ax.set_xscale("log")
    if figure.log_y:
        ax.set_yscale("log")
    for axis, log in ((ax.xaxis, figure.log_x), (ax.yaxis, figure.log_y)):
        if log:
            axis.set_major_formatter(FuncFormatter(lambda value, _: tick_name(value)))
            low, high = axis.get_view_interval()
            if high < 20 * low:
                axis.set_minor_formatter(FuncFormatter(_two_and_five))
            else:
                axis.set_minor_formatter(NullFormatter())
    if figure.whole_x:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if figure.x_range:
        ax.set_xlim(*figure.x_range)
    if figure.y_range:
        ax.set_ylim(*figure.y_range)
    for axis, ticks in ((ax.xaxis, figure.x_ticks), (ax.yaxis, figure.y_ticks)):
        if ticks:
            axis.set_major_locator(FixedLocator([at for at, _ in ticks]))
            axis.set_minor_locator(NullLocator())
            names = dict(ticks)
            axis.set_major_formatter(FuncFormatter(lambda value, _, names=names: names.get(value, "")))


def _two_and_five(value: float, _: int) -> str:
    return tick_name(value) if f"{value:e}"[0] in "25" else ""


def draw_small_ticks(axes: Sequence[Any]) -> None:
    """Draw the ticks without numbers of every axis as one row of marks: as ticks each is five objects."""
    rows = [(ax, axis, _without_numbers(axis)) for ax in axes for axis in (ax.xaxis, ax.yaxis)]
    for ax, axis, places in rows:
        if not places:
            continue
        zeros = [0.0] * len(places)
        flat = axis is ax.xaxis
        marker: Any = TICKDOWN if flat else TICKLEFT
        marks = Line2D(
            *((places, zeros) if flat else (zeros, places)),
            linestyle="none",
            marker=marker,
            markersize=_SMALL,
            markeredgewidth=_THIN,
            color="black",
            transform=ax.get_xaxis_transform() if flat else ax.get_yaxis_transform(),
            clip_on=False,
            zorder=2.01,  # over the axes' edge
        )
        marks.set_in_layout(False)
        ax.add_artist(marks)
        axis.set_minor_locator(NullLocator())


def _without_numbers(axis: Any) -> list[float]:
    if not isinstance(axis.get_minor_formatter(), NullFormatter):
        return []
    low, high = sorted(axis.get_view_interval())
    return [float(place) for place in axis.get_minorticklocs() if low <= place <= high]
