"""A figure's grid of shaded cells on matplotlib axes."""

from typing import Any

from matplotlib.patches import Rectangle

from loopscope.report.plots.figure import SHADES, Grid

_INK = ("#ffffff", "#1c2128", "#1c2128", "#57606a")  # read on the shades
_MOST_TEXTS = 20
"""Columns up to which cells hold their text."""


def draw_grid(ax: Any, grid: Grid) -> None:
    """Draw a grid's cells with their text, what stands beside the rows, and a legend entry per class there is."""
    written = len(grid.x) <= _MOST_TEXTS
    for row, (shades, texts) in enumerate(zip(grid.shades, grid.texts, strict=True)):
        for x, shade, text in zip(grid.x, shades, texts, strict=True):
            if shade is None:
                continue
            cell = Rectangle((x - 0.48, -row - 0.45), 0.96, 0.9, color=SHADES[shade], lw=0, zorder=2)
            cell.set_in_layout(False)
            ax.add_patch(cell)
            if written and text:
                # Inside its cell: nothing that the layout has to make room for.
                ax.text(
                    x,
                    -row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=_INK[shade],
                    zorder=3,
                    in_layout=False,
                )
    for row, text in enumerate(grid.ends):
        ax.annotate(
            text,
            (1, -row),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    used = {shade for row in grid.shades for shade in row}
    for index, name in enumerate(grid.classes):
        if index in used:
            ax.plot([], [], "s", ms=9, color=SHADES[index], label=name)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
