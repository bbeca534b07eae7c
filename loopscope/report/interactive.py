"""Figure descriptions to plotly, for the page."""

import json
from typing import Any

import plotly.graph_objects as go

from loopscope.report.figures import Figure, Series


def to_plotly(figure: Figure) -> dict[str, Any]:
    """Plain data and layout; colours of text and grid are the page's, set where it is drawn."""
    drawn = go.Figure(data=[trace for series in figure.series for trace in _traces(figure, series)])
    count = len(figure.panels)
    multiple = count > 1
    layout: dict[str, Any] = {
        "margin": {"l": 62, "r": 16, "t": 34 if multiple else 12, "b": 56},
        "hovermode": "closest" if figure.corner else "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.2, "x": 0, "font": {"size": 12}},
        "height": 420,
    }
    gap = 0.025 if multiple else 0.0
    width = (1 - gap * (count - 1)) / count
    for panel, name in enumerate(figure.panels):
        suffix = "" if panel == 0 else str(panel + 1)
        left = panel * (width + gap)
        layout[f"xaxis{suffix}"] = {
            "title": {"text": figure.x_label, "font": {"size": 12}},
            "type": "log" if figure.log_x else "linear",
            "domain": [left, left + width],
            "anchor": f"y{suffix}",
            **({"dtick": 1} if figure.whole_x else {}),
            **(_log_ticks([v for s in figure.series for v in s.x]) if figure.log_x else {}),
        }
        layout[f"yaxis{suffix}"] = {
            "type": "log" if figure.log_y else "linear",
            "anchor": f"x{suffix}",
            **(_log_ticks([v for s in figure.series for v in s.y]) if figure.log_y else {}),
            **(
                {"title": {"text": figure.y_label}}
                if panel == 0
                else {"matches": "y", "showticklabels": False}
            ),
        }
        if multiple:
            layout.setdefault("annotations", []).append(
                {
                    "text": _plain(name),
                    "x": left,
                    "y": 1.02,
                    "xref": "paper",
                    "yref": "paper",
                    "showarrow": False,
                    "xanchor": "left",
                    "yanchor": "bottom",
                    "font": {"size": 12},
                }
            )
    if figure.corner:
        _mark_corner(figure, layout)
    drawn.update_layout(layout)
    plain: dict[str, Any] = json.loads(drawn.to_json(engine="json"))
    # Plotly's default template is 7 kB a figure and not used.
    plain["layout"].pop("template", None)
    return plain


def _traces(figure: Figure, series: Series) -> list[go.Scatter]:
    suffix = "" if series.panel == 0 else str(series.panel + 1)
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    name = _plain(series.name)
    traces = []
    if series.low:
        traces.append(
            go.Scatter(
                x=[*series.x, *reversed(series.x)],
                y=[*series.high, *reversed(series.low)],
                fill="toself",
                fillcolor=_transparent(series.color),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
                **axes,
            )
        )
    traces.append(
        go.Scatter(
            x=list(series.x),
            y=list(series.y),
            name=name,
            mode="markers" if series.points_only else "lines+markers" if len(series.x) < 30 else "lines",
            line={"color": series.color, "dash": series.dash, "width": 2},
            marker={"color": series.color, "size": 6 if series.faint or not series.points_only else 13},
            opacity=0.35 if series.faint else 1.0,
            legendgroup=name,
            showlegend=not series.faint and series.panel == 0,
            hovertemplate=f"%{{y:.4~g}}<extra>{name}</extra>"
            if not series.points_only
            else f"{name}<br>{figure.x_label} %{{x:.4~g}}<br>{figure.y_label} %{{y:.4~g}}<extra></extra>",
            **axes,
        )
    )
    return traces


def _mark_corner(figure: Figure, layout: dict[str, Any]) -> None:
    assert figure.corner is not None
    x, y, text = figure.corner
    shown = figure.series
    low_x = min(value for series in shown for value in series.x) / 1.6
    low_y = min(value for series in shown for value in series.y) * 0.97
    layout["shapes"] = [
        {
            "type": "rect",
            "x0": low_x,
            "x1": x,
            "y0": low_y,
            "y1": y,
            "fillcolor": "rgba(0,158,115,0.13)",
            "line": {"width": 0},
            "layer": "below",
            "label": {"text": text, "textposition": "top left", "font": {"size": 12, "color": "#009e73"}},
        }
    ]


def _log_ticks(values: list[float]) -> dict[str, Any]:
    """Whole decades where there are several (1k, 10k), plotly's own choice within one or two."""
    wide = max(values) > 30 * min(values)
    return {"tickformat": "~s", "dtick": 1} if wide else {"tickformat": "~r"}


def _transparent(color: str) -> str:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _plain(text: str) -> str:
    """Plotly reads some HTML in names: what could be a tag is shown as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
