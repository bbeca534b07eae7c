"""Figure descriptions to plotly, for the page.

They are plain values: plotly's own classes check every property of every trace, which takes a page of a hundred runs
several seconds. A test hands what is made here to those classes.
"""

import math
from typing import Any

from loopscope.report.plots.figure import Figure, Series, shorten_apart
from loopscope.report.plots.plotly_axes import (
    add_mark,
    area_shape,
    axis_layout,
    escape_tags,
    panel_heading,
    trace,
    transparent,
)
from loopscope.report.plots.plotly_grid import add_ends, grid_traces

_LEGEND = 30
"""Pixels that a figure's height leaves to a legend of one row."""
_LONG = 30
"""Points from which a line is drawn without markers."""
_PAGE, _LETTER = 1180, 6.6
"""Pixels of a wide figure, and of a letter of a panel's name."""


def to_plotly(figure: Figure) -> dict[str, Any]:
    """Return a figure as plain data and layout of plotly; colours of text and grid are the page's."""
    listed = figure.first_of_their_name()
    data = [
        *grid_traces(figure),
        *(
            made
            for series in figure.series
            for made in _traces(figure, series, any(series is entry for entry in listed))
        ),
    ]
    count = len(figure.panels)
    named = any(mark.text and mark.axis == "x" for mark in figure.marks)
    pointed_at = figure.grid is not None or any(series.points_only for series in figure.series)
    layout: dict[str, Any] = {
        "margin": {"l": 62, "r": 16, "t": 34 if count > 1 else 28 if named else 12, "b": 56},
        "hovermode": "closest" if pointed_at else "x unified",
        "showlegend": len(listed) > 1 or figure.grid is not None,
        # At the bottom of the whole drawing; the page makes room there for as many rows as it takes.
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "height": figure.height - _LEGEND,
        "annotations": [],
        "shapes": [],
    }
    gap = 0.025 if count > 1 else 0.0
    width = (1 - gap * (count - 1)) / count
    names = shorten_apart(figure.panels, max(12, int(_PAGE / count / _LETTER)))
    for panel, name in enumerate(names):
        suffix = "" if panel == 0 else str(panel + 1)
        left = panel * (width + gap)
        layout[f"xaxis{suffix}"] = {
            "title": {"text": escape_tags(figure.x_label), "font": {"size": 12}},
            "domain": [left, left + width],
            "anchor": f"y{suffix}",
            **axis_layout(figure, "x"),
        }
        layout[f"yaxis{suffix}"] = {
            "anchor": f"x{suffix}",
            **axis_layout(figure, "y"),
            **(
                {"title": {"text": escape_tags(figure.y_label), "font": {"size": 12}}, "automargin": True}
                if panel == 0
                else {"matches": "y", "showticklabels": False}
            ),
        }
        if count > 1:
            layout["annotations"].append(panel_heading(name, left))
        for mark in (mark for mark in figure.marks if mark.panel in (None, panel)):
            add_mark(figure, mark, suffix, layout, named=count == 1)
    layout["shapes"] += [area_shape(figure, area) for area in figure.areas]
    add_ends(figure, layout)
    return {"data": _plain(data), "layout": _plain(layout)}


def _plain(value: Any) -> Any:
    """Lists for tuples, and six digits: a page holds tens of thousands of numbers; nobody reads off more."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        short = float(f"{value:.6g}")
        return int(short) if short.is_integer() and abs(short) < 1e6 else short
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _traces(figure: Figure, series: Series, listed: bool) -> list[dict[str, Any]]:
    suffix = "" if series.panel == 0 else str(series.panel + 1)
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    name = escape_tags(series.name)
    traces = []
    if series.low and not series.bars:
        traces.append(
            trace(
                "scatter",
                x=[*series.x, *reversed(series.x)],
                y=[*series.high, *reversed(series.low)],
                mode="lines",
                fill="toself",
                fillcolor=transparent(series.color),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
                **axes,
            )
        )
    marker: dict[str, Any] = {"color": series.color, "size": 6}
    if series.points_only and not series.faint:
        marker["size"] = series.dot
    if series.symbol != "circle" or series.hollow:
        marker["symbol"] = [series.symbol + ("-open" if hollow else "") for hollow in _hollow(series)]
        marker["line"] = {"width": 2 if series.points_only else 1.5, "color": series.color}
    words = (
        {"text": list(map(escape_tags, series.labels)), "textposition": list(series.places)}
        if series.labels
        else {}
    )
    traces.append(
        trace(
            "scatter",
            x=list(series.x),
            y=list(series.y),
            name=name,
            mode=_mode(series),
            line={"color": series.color, "dash": series.dash, "width": _width(series)},
            marker=marker,
            opacity=0.35 if series.faint or series.thick else 1.0,
            legendgroup=name,
            showlegend=listed,
            **words,
            **_bars(series),
            **_hover(figure, series, name),
            **axes,
        )
    )
    return traces


def _bars(series: Series) -> dict[str, Any]:
    if not (series.low and series.bars):
        return {}
    middle = series.x if series.bars == "x" else series.y
    return {
        f"error_{series.bars}": {
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, high in zip(middle, series.high, strict=True)],
            "arrayminus": [value - low for value, low in zip(middle, series.low, strict=True)],
            "thickness": 1.8,
            "width": 4,
            "color": series.color,
        }
    }


def _width(series: Series) -> float:
    return (7 if series.thick else 1.3) if series.guide else 2


def _mode(series: Series) -> str:
    if series.guide:
        return "lines"
    mode = "markers" if series.points_only else "lines+markers" if len(series.x) < _LONG else "lines"
    return mode + ("+text" if series.labels else "")


def _hollow(series: Series) -> tuple[bool, ...]:
    return series.hollow or (False,) * len(series.x)


def _hover(figure: Figure, series: Series, name: str) -> dict[str, Any]:
    if series.guide:
        return {"hoverinfo": "skip"}
    if not series.points_only:
        return {"hovertemplate": f"%{{y:.4~g}}<extra>{name}</extra>"}
    note = "<br>%{customdata}" if series.notes else ""
    coordinates = (
        f"<br>{escape_tags(figure.x_label)} %{{x:.4~g}}<br>{escape_tags(figure.y_label)} %{{y:.4~g}}"
    )
    notes = {"customdata": list(map(escape_tags, series.notes))} if series.notes else {}
    return {"hovertemplate": f"{name}{note}{coordinates}<extra></extra>", **notes}
