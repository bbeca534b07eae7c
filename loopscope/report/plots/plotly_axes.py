"""Axes, panel headings, marks and shaded areas of a figure, in plotly's layout."""

import math
from typing import Any, Literal

from loopscope.report.plots.figure import QUIET, Area, Figure, Mark
from loopscope.report.plots.ticks import log_ticks


def axis_layout(figure: Figure, axis: Literal["x", "y"]) -> dict[str, Any]:
    """Return scale, ticks and range of one axis, as plotly's layout has them."""
    log = figure.log_x if axis == "x" else figure.log_y
    ticks = figure.x_ticks if axis == "x" else figure.y_ticks
    span = figure.x_range if axis == "x" else figure.y_range
    made: dict[str, Any] = {"type": "log" if log else "linear"}
    if figure.grid:
        made |= {"showgrid": False, "ticks": ""}  # lines would show between the cells
    if ticks:
        made |= {"tickvals": [at for at, _ in ticks], "ticktext": [escape_tags(text) for _, text in ticks]}
    elif log:
        decades = log_ticks(figure.values(axis))
        made |= {"tickvals": [at for at, _ in decades], "ticktext": [text for _, text in decades]}
    elif axis == "x" and figure.whole_x:
        made |= _whole_ticks(figure)
    else:
        # Numbers are written out to a million, then as powers of ten: plotly's own k, M … Y are units to a reader.
        made |= {"exponentformat": "power", "minexponent": 6, "separatethousands": True}
    if span:
        made["range"] = [math.log10(end) for end in span] if log else list(span)
    return made


def trace(kind: str, **properties: Any) -> dict[str, Any]:
    """Return a trace as plotly takes it."""
    return {"type": kind, **properties}


def _whole_ticks(figure: Figure) -> dict[str, Any]:
    """Whole numbers, at most a dozen across the page."""
    values = figure.values("x")
    each = (max(values) - min(values)) * len(figure.panels) / 12
    return {"dtick": next((step for step in (1, 2, 4, 5, 10, 20, 25, 50, 100) if step >= each), 200)}


def panel_heading(name: str, left: float) -> dict[str, Any]:
    """Return a panel's name above its left end, as a plotly annotation."""
    return {
        "text": escape_tags(name),
        "x": left,
        "y": 1.02,
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "bottom",
        "font": {"size": 12},
    }


def add_mark(figure: Figure, mark: Mark, suffix: str, layout: dict[str, Any], named: bool) -> None:
    """Add a mark to a panel's layout; its name stands above the axes, where no line of data runs."""
    across, along = ("x", "y") if mark.axis == "x" else ("y", "x")
    reference = {f"{across}ref": f"{across}{suffix}", f"{along}ref": f"{along}{suffix} domain"}
    ends = {f"{across}0": mark.at, f"{across}1": mark.at, f"{along}0": 0, f"{along}1": 1}
    line = {"color": QUIET, "width": 1.5, "dash": "dash"}
    shape = {"type": "line", "layer": "below", "line": line, **reference, **ends}
    if mark.between != (None, None):
        part = {f"{along}ref": f"{along}{suffix}", f"{along}0": mark.between[0], f"{along}1": mark.between[1]}
        shape |= part | {"layer": "above", "line": {"color": QUIET, "width": 2.5}}
    layout["shapes"].append(shape)
    if mark.text and mark.axis == "y" and not suffix:
        at = math.log10(mark.at) if figure.log_y else mark.at
        layout["annotations"].append(
            {
                "text": escape_tags(mark.text),
                "x": 1,
                "y": at,
                "xref": "x domain",
                "yref": "y",
                "showarrow": False,
                "xanchor": "right",
                "yanchor": "bottom",
                "font": {"size": 12, "color": QUIET},
            }
        )
    if named and mark.text and mark.axis == "x":
        at = math.log10(mark.at) if figure.log_x else mark.at  # annotations count in decades, shapes do not
        layout["annotations"].append(
            {
                "text": escape_tags(mark.text),
                "x": at,
                "y": 1,
                **reference,
                "showarrow": False,
                "yanchor": "bottom",
                "font": {"size": 12, "color": QUIET},
            }
        )


def area_shape(figure: Figure, area: Area) -> dict[str, Any]:
    """Return a shaded region with its name, as a plotly shape; the page gives the name its colour."""
    x0, x1 = _ends(area.x, figure.values("x"), figure.x_range, figure.log_x)
    y0, y1 = _ends(area.y, figure.values("y"), figure.y_range, figure.log_y)
    return {
        "type": "rect",
        "x0": x0,
        "x1": x1,
        "y0": y0,
        "y1": y1,
        "fillcolor": transparent(area.color, 0.13),
        "line": {"width": 0},
        "layer": "below",
        "label": {
            "text": f"<b>{escape_tags(area.text)}</b>",
            "textposition": area.place,
            "textangle": 0 if area.upright else -90,
            "font": {"size": 13},
        },
    }


def _ends(
    given: tuple[float | None, float | None], values: list[float], span: tuple[float, float] | None, log: bool
) -> tuple[float, float]:
    """Where an open end lies: at the axis's end, or a little beyond the outermost value."""
    low, high = span or (
        (min(values) / 1.6, max(values) * 1.6) if log else (min(values) * 0.97, max(values) * 1.03)
    )
    return (low if given[0] is None else given[0], high if given[1] is None else given[1])


def transparent(color: str, alpha: float = 0.15) -> str:
    """Return a colour that lets the grid through."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def escape_tags(text: str) -> str:
    """Return text with what could be a tag shown as it is: plotly reads some HTML in names."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
