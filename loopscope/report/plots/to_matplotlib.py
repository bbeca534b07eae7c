"""Figure descriptions to PNG and SVG with matplotlib: no browser needed, ready for a paper."""

import io
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from PIL import Image

from loopscope.report.plots.figure import Figure, shorten_apart
from loopscope.report.plots.margins import lay_out
from loopscope.report.plots.matplotlib_grid import draw_grid
from loopscope.report.plots.matplotlib_series import draw_area, draw_mark, draw_series, label_ends
from loopscope.report.plots.matplotlib_ticks import draw_small_ticks, scale_axes
from loopscope.report.plots.sheet import TITLE, Sheet, without_title

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # an SVG repeats the whole list at every text
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small files that can be edited
    "svg.hashsalt": "loopscope",  # the same figure gives the same bytes
    "text.parse_math": False,  # a condition's name is not a formula
}
MOST_ENDS = 8
"""Names beside ends of lines; beyond, a legend."""
MOST_ROWS = 12
"""Entries of a legend; beyond, colours could not be told apart."""
DPI = 160
"""Dots per inch of a PNG."""
_LETTERS_PER_INCH = 12
"""Of a panel's name, in its size of type."""
_COMPRESSION = 3
"""Of a PNG, out of 9: 5 % larger than at the usual 6, and written in a third of the time."""


def sheet(figures: Sequence[Figure], title: str | None) -> Sheet:
    """Draw figures side by side. `title` heads them all; None heads each with its own."""
    canvas = draw(figures, title)
    with matplotlib.rc_context(STYLE):
        above = _title_points(canvas)
        png, svg = _png(canvas), _svg(canvas)
        return Sheet(png, svg, without_title(svg, above))


def _png(canvas: Canvas) -> bytes:
    agg: Any = canvas.canvas  # with which it was laid out, and which knows what its texts measure
    agg.draw()
    buffer = io.BytesIO()
    drawn = Image.frombuffer("RGBA", agg.get_width_height(physical=True), agg.buffer_rgba())
    # No part of it is transparent.
    drawn.convert("RGB").save(buffer, "png", compress_level=_COMPRESSION, dpi=(DPI, DPI))
    return buffer.getvalue()


def _svg(canvas: Canvas) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(canvas).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _title_points(canvas: Canvas) -> float:
    """Points from the top of the drawing to below its title."""
    title = _title(canvas)
    if title is None:
        return 0.0
    below: float = title.get_window_extent().y0
    return (canvas.bbox.height - below) * 72 / canvas.dpi


def _title(canvas: Canvas) -> Any:
    return next((text for text in canvas.texts if text.get_gid() == TITLE), None)


def draw(figures: Sequence[Figure], title: str | None) -> Canvas:
    """Draw figures side by side, each with its panels, and lay them out once, for all formats.

    `title` heads them all; None heads each with its own.
    """
    panels = [(figure, panel) for figure in figures for panel in range(len(figure.panels))]
    with matplotlib.rc_context(STYLE):
        size = (_width(figures, len(panels)), max(_height(figure) for figure in figures))
        canvas = Canvas(figsize=size, dpi=DPI)
        FigureCanvasAgg(canvas)
        shared = len(figures) == 1 and len(panels) > 1
        axes = canvas.subplots(1, len(panels), squeeze=False, sharey=shared)[0]
        for ax, (figure, panel) in zip(axes, panels, strict=True):
            _draw_panel(ax, figure, panel, first=ax is axes[0] or not shared, alone=title is None)
        for figure in figures:
            _legend([ax for ax, (owner, _) in zip(axes, panels, strict=True) if owner is figure], figure)
        if title:
            canvas.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold").set_gid(TITLE)
        draw_small_ticks(axes)
        lay_out(canvas, axes, _title(canvas))
    return canvas


def _width(figures: Sequence[Figure], panels: int) -> float:
    if len(figures) > 1:
        return 5.6 * panels
    if panels == 1:
        return 9.6 if figures[0].wide else 6.4
    return max(6.4, 2.6 * panels)


def _height(figure: Figure) -> float:
    """In inches, in proportion to its height on the page."""
    return 4.0 * figure.height / 420


def _draw_panel(ax: Any, figure: Figure, panel: int, first: bool, alone: bool) -> None:
    members = [series for series in figure.series if series.panel == panel]
    if figure.grid:
        draw_grid(ax, figure.grid)
    for series in members:
        draw_series(ax, series)
    scale_axes(ax, figure)
    ax.set_xlabel(figure.x_label)
    if first:
        ax.set_ylabel(figure.y_label)
    if figure.panels[panel]:
        room = int(_LETTERS_PER_INCH * (_width([figure], len(figure.panels)) / len(figure.panels) - 0.3))
        name = shorten_apart(figure.panels, room)[panel]
        ax.set_title("\n".join(wrap(name, room)), loc="left", fontsize=10, y=1.0)
    elif alone:
        ax.set_title(figure.title, loc="left", fontsize=11, fontweight="bold", y=1.0)
    for area in figure.areas:
        draw_area(ax, area)
    for mark in (mark for mark in figure.marks if mark.panel in (None, panel)):
        draw_mark(ax, mark, named=not figure.panels[panel] and not alone)
    ends = [series for series in members if series.label_end]
    if ends and _ends_named(figure):
        label_ends(ax, ends)


def _ends_named(figure: Figure) -> bool:
    """Whether names stand beside the ends of lines, in place of a legend."""
    return 0 < sum(bool(series.label_end) for series in figure.series) <= MOST_ENDS


def _legend(axes: Sequence[Any], figure: Figure) -> None:
    """Every name once, also where the panels do not all have it."""
    named: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    few = 1 < len(named) <= MOST_ROWS or (figure.grid is not None and named)
    if not few or _ends_named(figure):
        return
    outside = len(axes) > 1 or bool(figure.areas) or figure.grid is not None
    if outside or len(named) > 4:
        canvas = axes[0].figure
        columns = int(canvas.get_figwidth() * 72 / (5.3 * max(map(len, named)) + 50))
        columns = max(1, min(len(named), columns))
        canvas.legend(named.values(), named.keys(), fontsize=8.5, ncols=columns, loc="outside lower left")
    else:
        axes[0].legend(named.values(), named.keys(), fontsize=8.5)
