"""Figure descriptions to PNG and SVG with matplotlib: no browser needed, ready for a paper."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from loopscope.report.figures import Figure, Series

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small files that can be edited
    "svg.hashsalt": "loopscope",  # the same figure gives the same bytes
    "text.parse_math": False,  # a condition's name is not a formula
}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def save(figure: Figure, directory: Path) -> list[Path]:
    """Write a figure as `<key>.png` and `<key>.svg`."""
    return _save(draw([figure], figure.title), directory, figure.key)


def save_hero(figures: Sequence[Figure], directory: Path) -> list[Path]:
    """One wide picture for a README: scale over training beside perplexity by loop."""
    return _save(draw(figures, None), directory, "hero")


def svg(figure: Figure) -> str:
    """A figure as SVG text, without a title: the page has its own."""
    with matplotlib.rc_context(STYLE):
        buffer = io.StringIO()
        draw([figure], None).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def draw(figures: Sequence[Figure], title: str | None) -> Canvas:
    """Figures side by side, each with its panels."""
    panels = [(figure, panel) for figure in figures for panel in range(len(figure.panels))]
    with matplotlib.rc_context(STYLE):
        width = 6.4 if len(panels) == 1 else max(6.4, (5.6 if len(figures) > 1 else 2.6) * len(panels))
        canvas = Canvas(figsize=(width, 4.0), layout="constrained")
        FigureCanvasAgg(canvas)
        shared = len(figures) == 1 and len(panels) > 1
        axes = canvas.subplots(1, len(panels), squeeze=False, sharey=shared)[0]
        for ax, (figure, panel) in zip(axes, panels, strict=True):
            _draw_panel(ax, figure, panel, first=ax is axes[0] or not shared, alone=title is None)
        if title:
            canvas.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return canvas


def _draw_panel(ax: Any, figure: Figure, panel: int, first: bool, alone: bool) -> None:
    members = [series for series in figure.series if series.panel == panel]
    for series in members:
        _draw_series(ax, series)
    if figure.log_x:
        ax.set_xscale("log")
    if figure.log_y:
        ax.set_yscale("log")
    for axis, log in ((ax.xaxis, figure.log_x), (ax.yaxis, figure.log_y)):
        if log:
            axis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
            )
            low, high = axis.get_view_interval()
            if high < 20 * low:
                axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            else:
                axis.set_minor_formatter(NullFormatter())
    if figure.whole_x:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(figure.x_label)
    if first:
        ax.set_ylabel(figure.y_label)
    if figure.panels[panel]:
        ax.set_title(_shortened(figure.panels[panel], 24), loc="left", fontsize=10)
    elif alone:
        ax.set_title(figure.title, loc="left", fontsize=11, fontweight="bold")
    if figure.corner:
        x, y, text = figure.corner
        ax.axvspan(ax.get_xlim()[0], x, ymax=_axis_share(ax, y), color="#009e73", alpha=0.13, lw=0)
        ax.annotate(text, (0.02, 0.02), xycoords="axes fraction", color="#00704f", fontsize=9)
    ends = [series for series in members if series.label_end]
    if ends and len(ends) <= 8:
        _label_ends(ax, ends)
    elif panel == 0 and members:
        rows = [series for series in members if not series.faint]
        if len(rows) <= 12:
            ax.legend(fontsize=8.5)


def _draw_series(ax: Any, series: Series) -> None:
    if series.low:
        ax.fill_between(series.x, series.low, series.high, color=series.color, alpha=0.15, lw=0)
    if series.points_only:
        size, alpha = (18, 0.35) if series.faint else (70, 1.0)
        ax.scatter(series.x, series.y, s=size, color=series.color, alpha=alpha, lw=0)
        return
    marker = "o" if len(series.x) < 30 else None
    name = _shortened(series.name, 40)
    ax.plot(
        series.x, series.y, _DASHES[series.dash], color=series.color, marker=marker, ms=4, lw=1.8, label=name
    )


def _label_ends(ax: Any, ends: Sequence[Series]) -> None:
    """Names beside the last points, in room made on the right, pushed apart where they would overlap."""
    if not ends[0].points_only:
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
        longest = max(len(series.label_end) for series in ends)
        ax.set_xlim(low, high + (high - low) * min(0.9, 0.021 * longest))
    to_pixels = ax.transData.transform
    placed: list[float] = []
    for series in sorted(ends, key=lambda entry: entry.y[-1]):
        x, y = to_pixels((series.x[-1], series.y[-1]))
        height = y
        while any(abs(height - other) < 15 for other in placed):
            height += 3
        placed.append(height)
        before = series.points_only and _right_half(ax, x)
        ax.annotate(
            _shortened(series.label_end, 42),
            (series.x[-1], series.y[-1]),
            xytext=(-8 if before else 8, (height - y) * 72 / ax.figure.dpi),
            textcoords="offset points",
            ha="right" if before else "left",
            va="center",
            color=series.color,
            fontsize=9,
            fontweight="bold",
        )


def _right_half(ax: Any, x: float) -> bool:
    return bool(ax.transAxes.inverted().transform((x, 0))[0] > 0.5)


def _axis_share(ax: Any, y: float) -> float:
    return float(ax.transAxes.inverted().transform(ax.transData.transform((ax.get_xlim()[0], y)))[1])


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _save(canvas: Canvas, directory: Path, key: str) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{key}.png", directory / f"{key}.svg"]
    with matplotlib.rc_context(STYLE):
        canvas.savefig(paths[0], dpi=160)
        canvas.savefig(paths[1], metadata={"Date": None})
    return paths
