"""What every figure shows, free of any plotting library: series on axes, with a title and a caption.

`study_figures`, `audits` and `evaluations` make them from records; `interactive` turns them into plotly for the
page, `static` into PNG and SVG for papers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Of conditions alone: Okabe and Ito's colour-blind safe palette without the lightest (yellow), then darker shades.
PALETTE = (
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7f3c00",
    "#004064",
    "#00543d",
    "#7a3560",
)
OTHER_COLORS = (
    "#332288",
    "#882255",
    "#117733",
    "#999933",
    "#aa4499",
    "#44aa99",
    "#cc6677",
    "#6699cc",
)
"""Of what is no condition: exit rules, quantities of one model. From Paul Tol's muted scheme, none of `PALETTE`."""
DASHES = ("solid", "dash", "dot", "dashdot")
SHADES = ("#0b7a5b", "#86c9b0", "#d6ece4", "#eceff2")
"""Of a grid, best first, on white; the page has its own for a dark one."""
QUIET = "#7d8590"
"""What is beside the point: read on white and on black."""

_ROOM = 0.4
"""Room for bands above and below the lines, as a share of what the lines span."""

Symbol = Literal["circle", "square", "diamond", "triangle-down"]
Ends = tuple[float | None, float | None]  # of an interval on an axis; None is the axis's own end


@dataclass(frozen=True)
class Series:
    """One line or cloud of points in a figure."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    color: str
    dash: str = "solid"
    low: tuple[float, ...] = ()  # lower and upper ends of intervals; empty where there are none
    high: tuple[float, ...] = ()
    bars: Literal["", "x", "y"] = ""  # intervals as bars along an axis; "" is a band around the line
    points_only: bool = False
    dot: int = 13  # diameter of the points of a cloud, pixels
    faint: bool = False
    panel: int = 0
    label_end: str = ""  # written beside the last point in the static figures
    guide: bool = False  # a thin line without points, such as a fit through another series
    thick: bool = False  # of a guide: a broad one, behind what it marks
    in_legend: bool = True
    symbol: Symbol = "circle"
    hollow: tuple[bool, ...] = ()  # per point; empty is none
    labels: tuple[str, ...] = ()  # per point, written beside it
    places: tuple[str, ...] = ()  # of the labels, in plotly's words: "top center", "middle right"
    notes: tuple[str, ...] = ()  # per point, said when pointed at


@dataclass(frozen=True)
class Area:
    """A shaded region of a figure with its name inside."""

    text: str
    color: str
    x: Ends
    y: Ends
    place: str = "top left"
    upright: bool = True  # False turns the name by 90 degrees: for a narrow strip


@dataclass(frozen=True)
class Mark:
    """A dashed line at one value of an axis: upright with its name above, or level with its name at the right."""

    axis: Literal["x", "y"]
    at: float
    text: str = ""
    between: Ends = (None, None)  # on the other axis: the line's ends; the whole figure by default
    panel: int | None = None  # None: in every one


@dataclass(frozen=True)
class Grid:
    """Cells in rows, shaded by class: what is best is darkest. Row 0 is on top, at height 0; row n at -n."""

    x: tuple[float, ...]  # of the columns, one apart
    rows: tuple[str, ...]
    classes: tuple[str, ...]  # names of the shades, at most as many as there are `SHADES`
    shades: tuple[tuple[int | None, ...], ...]  # per row and column: the cell's class, or None for no cell
    texts: tuple[tuple[str, ...], ...]  # inside the cells
    notes: tuple[tuple[str, ...], ...]  # said when pointed at
    ends: tuple[str, ...] = ()  # beside the rows, on the right


@dataclass(frozen=True)
class Figure:
    """One figure: panels side by side sharing the y axis."""

    key: str  # file name
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    panels: tuple[str, ...] = ("",)
    log_x: bool = False
    log_y: bool = False
    wide: bool = False  # takes the whole width of the page
    whole_x: bool = False  # x counts something: ticks at whole numbers only
    grid: Grid | None = None  # below the series
    areas: tuple[Area, ...] = ()
    marks: tuple[Mark, ...] = ()
    x_ticks: tuple[tuple[float, str], ...] = ()  # where the usual ticks would not do
    y_ticks: tuple[tuple[float, str], ...] = ()
    x_range: tuple[float, float] | None = None  # None: what holds every point
    y_range: tuple[float, float] | None = None
    height: int = 420  # pixels on the page
    least: int = 0  # pixels of width below which it scrolls

    def values(self, axis: Literal["x", "y"]) -> list[float]:
        """Return every value on an axis."""
        columns = list(self.grid.x) if self.grid and axis == "x" else []
        return columns + [value for series in self.series for value in getattr(series, axis)]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.series and (self.grid is None or not self.grid.rows)

    def first_of_their_name(self) -> list[Series]:
        """Return the series that the legend lists: every name once, whatever panel it is in."""
        named: dict[str, Series] = {}
        for series in self.series:
            if series.in_legend and not series.faint:
                named.setdefault(series.name, series)
        return list(named.values())


def points(
    x: Sequence[float], y: Sequence[float], log_x: bool = False, log_y: bool = False
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the points that can be drawn: finite, and above zero where an axis is logarithmic."""
    kept = [
        (float(a), float(b)) for a, b in zip(x, y, strict=False) if drawable(a, log_x) and drawable(b, log_y)
    ]
    return tuple(a for a, _ in kept), tuple(b for _, b in kept)


def line_style(number: int) -> tuple[str, str]:
    """Return colour and dash of the condition with this number: the same in every figure of a page."""
    return PALETTE[number % len(PALETTE)], DASHES[(number // len(PALETTE)) % len(DASHES)]


def shorten(text: str, length: int) -> str:
    """Cut text to a length in its middle, with a sign that it was cut: names differ at their ends."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def shorten_apart(names: Sequence[str], length: int) -> list[str]:
    """Cut names to a length, or to as much more as it takes for names that differ to read differently."""
    while True:
        short = [shorten(name, length) for name in names]
        if len(set(short)) == len(set(names)) or length >= max(map(len, names)):
            return short
        length += 2


def drawable(value: float, log: bool = False) -> bool:
    """Return whether a value has a place on an axis."""
    return math.isfinite(value) and (value > 0 or not log)


def spans_decades(values: Sequence[float], ratio: float = 30.0) -> bool:
    """Return whether values, all above zero, are so far apart that a linear axis would hide the small ones."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > ratio * min(finite)


def ramp(index: int, count: int) -> str:
    """Return colours from orange to violet, first loop to last: both seen on white and on black."""
    share = index / max(1, count - 1)
    first, last = (244, 162, 97), (142, 68, 173)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(first, last, strict=True))


def span_of_lines(series: Sequence[Series], log: bool) -> tuple[tuple[float, float] | None, bool]:
    """Return what holds the lines and as much of their bands as leaves the lines to be seen; and whether bands are cut.

    Three seeds can have bands that would squeeze every line flat. None where nothing has a band.
    """
    if not any(entry.low for entry in series):
        return None, False
    to, back = (math.log, math.exp) if log else (float, float)
    lines = [to(value) for entry in series for value in entry.y]
    ends = [to(value) for entry in series for value in (*entry.low, *entry.high) if drawable(value, log)]
    room = _ROOM * (max(lines) - min(lines)) or 0.1 * abs(lines[0]) or 1.0
    low, high = max(min(lines) - room, min(*lines, *ends)), min(max(lines) + room, max(*lines, *ends))
    edge = 0.04 * (high - low) or room
    return (back(low - edge), back(high + edge)), min(ends, default=low) < low or max(
        ends, default=high
    ) > high
