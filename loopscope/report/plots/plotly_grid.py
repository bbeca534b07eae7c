"""A figure's grid of shaded cells, in plotly's traces. The page gives the shades the colours of its theme."""

from typing import Any

from loopscope.report.plots.figure import SHADES, Figure
from loopscope.report.plots.plotly_axes import escape_tags, trace


def grid_traces(figure: Figure) -> list[dict[str, Any]]:
    """Return a grid's cells, and one entry of the legend per class that there is; nothing without a grid."""
    grid = figure.grid
    if grid is None:
        return []
    cells = trace(
        "heatmap",
        x=list(grid.x),
        y=[-row for row in range(len(grid.rows))],
        z=[list(row) for row in grid.shades],
        zmin=-0.5,
        zmax=len(SHADES) - 0.5,
        colorscale=[
            [(shade_number + side) / len(SHADES), color]
            for shade_number, color in enumerate(SHADES)
            for side in (0, 1)
        ],
        showscale=False,
        xgap=2,
        ygap=3,
        text=[list(map(escape_tags, row)) for row in grid.texts],
        texttemplate="%{text}",
        customdata=[list(map(escape_tags, row)) for row in grid.notes],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
    )
    used = {shade for row in grid.shades for shade in row}
    legend = [
        trace(
            "scatter",
            x=[None],
            y=[None],
            mode="markers",
            name=escape_tags(name),
            marker={"symbol": "square", "size": 14, "color": SHADES[shade_number]},
            meta={"shade": shade_number},
        )
        for shade_number, name in enumerate(grid.classes)
        if shade_number in used
    ]
    return [cells, *legend]


def add_ends(figure: Figure, layout: dict[str, Any]) -> None:
    """Add what stands beside a grid's rows, with room for it."""
    grid = figure.grid
    if grid is None or not any(grid.ends):
        return
    layout["margin"]["r"] = 18 + round(6.6 * max(map(len, grid.ends)))
    layout["annotations"] += [
        {
            "text": escape_tags(text),
            "x": 1,
            "y": -row,
            "xref": "x domain",
            "yref": "y",
            "xshift": 8,
            "showarrow": False,
            "xanchor": "left",
            "yanchor": "middle",
            "font": {"size": 12},
        }
        for row, text in enumerate(grid.ends)
    ]
