"""One series, shaded area or mark on matplotlib axes, and the names of lines beside their ends."""

from collections.abc import Sequence
from typing import Any

from loopscope.report.plots.figure import Area, Mark, Series, shorten

_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_SYMBOLS = {"circle": "o", "square": "s", "diamond": "D", "triangle-down": "v"}
_SOFT = "#57606a"


def draw_series(ax: Any, series: Series) -> None:
    """Draw a line with its interval, a cloud of points, or a guide; with its points' labels."""
    if series.low and series.bars:
        _draw_bars(ax, series)
    elif series.low:
        ax.fill_between(series.x, series.low, series.high, color=series.color, alpha=0.15, lw=0)
    name = shorten(series.name, 48) if series.in_legend and not series.faint else "_"
    if series.points_only:
        _draw_points(ax, series, name)
    elif series.guide:
        width, alpha = (6.0, 0.35) if series.thick else (1.1, 0.8)
        ax.plot(
            series.x, series.y, _DASHES[series.dash], color=series.color, lw=width, alpha=alpha, label=name
        )
    else:
        marker = "o" if len(series.x) < 30 else None
        ax.plot(
            series.x,
            series.y,
            _DASHES[series.dash],
            color=series.color,
            marker=marker,
            ms=4,
            lw=1.8,
            label=name,
        )
        if any(series.hollow):
            _cloud(ax, series, tuple(hollow or None for hollow in series.hollow), 4.5, "_")
    for text, place, x, y in zip(series.labels, series.places, series.x, series.y, strict=False):
        if text:
            _label(ax, text, place, x, y, series.color)


def _draw_bars(ax: Any, series: Series) -> None:
    middle = series.x if series.bars == "x" else series.y
    below = [value - low for value, low in zip(middle, series.low, strict=True)]
    above = [high - value for value, high in zip(middle, series.high, strict=True)]
    ends = {f"{series.bars}err": (below, above)}
    ax.errorbar(series.x, series.y, **ends, fmt="none", ecolor=series.color, elinewidth=1.5, capsize=3)


def _draw_points(ax: Any, series: Series, name: str) -> None:
    if series.faint:
        ax.plot(series.x, series.y, "o", ms=4.2, color=series.color, alpha=0.35, mew=0)
    else:
        _cloud(ax, series, series.hollow or (False,) * len(series.x), 0.62 * series.dot, name)


def _cloud(ax: Any, series: Series, hollow: Sequence[bool | None], size: float, name: str) -> None:
    """Filled and hollow points (None is left out); the first kind that there is carries the name."""
    for kind in (False, True):
        indices = [index for index, value in enumerate(hollow) if value is kind]
        if indices:
            ax.plot(
                [series.x[index] for index in indices],
                [series.y[index] for index in indices],
                _SYMBOLS[series.symbol],
                ms=size,
                mfc="white" if kind else series.color,
                mec=series.color,
                mew=1.4,
                label=name,
                zorder=3,
            )
            name = "_"


def _label(ax: Any, text: str, place: str, x: float, y: float, color: str) -> None:
    up, side = place.split()
    ax.annotate(
        text,
        (x, y),
        xytext=({"left": -6, "center": 0, "right": 6}[side], {"top": 5, "middle": 0, "bottom": -5}[up]),
        textcoords="offset points",
        ha={"left": "right", "center": "center", "right": "left"}[side],
        va={"top": "bottom", "middle": "center", "bottom": "top"}[up],
        color=color,
        fontsize=8.5,
    )


def draw_area(ax: Any, area: Area) -> None:
    """Draw a shaded region, cut at the axes' ends."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x0, x1 = (end if given is None else given for given, end in zip(area.x, (left, right), strict=True))
    y0, y1 = (end if given is None else given for given, end in zip(area.y, (low, high), strict=True))
    ax.fill_between([x0, x1], y0, y1, color=area.color, alpha=0.11, lw=0, zorder=0)
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    up, side = area.place.split()
    inside = 4
    ax.annotate(
        area.text,
        (
            {"left": x0, "center": _middle(ax.get_xscale(), x0, x1), "right": x1}[side],
            {"top": y1, "middle": _middle(ax.get_yscale(), y0, y1), "bottom": y0}[up],
        ),
        xytext=(
            {"left": inside, "center": 0, "right": -inside}[side],
            {"top": -inside, "middle": 0, "bottom": inside}[up],
        ),
        textcoords="offset points",
        ha=side,
        va={"top": "top", "middle": "center", "bottom": "bottom"}[up],
        rotation=0 if area.upright else 90,
        color="#24292f",
        fontsize=9,
        fontweight="bold",
    )


def _middle(scale: str, low: float, high: float) -> float:
    return float((low * high) ** 0.5 if scale == "log" else (low + high) / 2)


def draw_mark(ax: Any, mark: Mark, named: bool) -> None:
    """Draw a dashed line; its name stands above the axes, where no line of data runs."""
    dashed = {"color": _SOFT, "lw": 1, "ls": (0, (4, 3)), "zorder": 1}
    low, high = mark.between
    if low is not None and high is not None:
        along = ([mark.at, mark.at], [low, high])
        ax.plot(
            *(along if mark.axis == "x" else along[::-1]),
            **{**dashed, "lw": 1.8, "ls": "-", "zorder": 4},
            label="_",
        )
    else:
        (ax.axvline if mark.axis == "x" else ax.axhline)(mark.at, **dashed)
    if mark.text and mark.axis == "y":
        ax.annotate(
            mark.text,
            (1, mark.at),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=_SOFT,
            fontsize=8.5,
        )
    if named and mark.text and mark.axis == "x":
        ax.annotate(
            mark.text,
            (mark.at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=_SOFT,
            fontsize=8.5,
        )


def label_ends(ax: Any, ends: Sequence[Series]) -> None:
    """Write names beside the last points, in room made on the right, pushed apart where they would overlap."""
    if not ends[0].points_only:
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
        longest = max(len(series.label_end) for series in ends)
        ax.set_xlim(low, high + (high - low) * min(0.9, 0.021 * longest))
    to_pixels, point = ax.transData.transform, ax.figure.dpi / 72
    placed: list[float] = []
    for series in sorted(ends, key=lambda entry: entry.y[-1]):
        x, y = to_pixels((series.x[-1], series.y[-1]))
        height = y
        while any(abs(height - other) < 10.8 * point for other in placed):
            height += 2.16 * point
        placed.append(height)
        before = series.points_only and _right_half(ax, x)
        ax.annotate(
            shorten(series.label_end, 42),
            (series.x[-1], series.y[-1]),
            xytext=(-8 if before else 8, (height - y) / point),
            textcoords="offset points",
            ha="right" if before else "left",
            va="center",
            color=series.color,
            fontsize=9,
            fontweight="bold",
        )


def _right_half(ax: Any, x: float) -> bool:
    return bool(ax.transAxes.inverted().transform((x, 0))[0] > 0.5)
