"""Drift: how scale grows over loops and how the state turns, past the trained depth, each with its fitted line."""

import math
from collections.abc import Sequence

from loopscope.report.audits.models import MOST_MODELS, ModelView, model_depth_marks
from loopscope.report.plots.figure import Figure, Series, points, spans_decades
from loopscope.report.study.table import HeadlineTable, TableCell, figures, number
from loopscope.results import Fit

_STEPS = 40
"""Points along a fitted line: straight lines bend on logarithmic axes."""


def drift(models: Sequence[ModelView]) -> Figure:
    """Draw scale per loop, with s_k against k fitted."""
    on = models[:MOST_MODELS]
    log = len(on) > 1 and spans_decades([value for m in on for value in m.report.expansion.rms if value > 0])
    series = []
    for model in on:
        rms = model.report.expansion.rms
        loops = range(1, len(rms) + 1)
        x, y = points(loops, rms, log_y=log)
        fit = model.report.expansion.growth
        series += _with_fit(model, len(on) == 1, x, y, fit, "per loop", log_y=log)
    return Figure(
        key="audit-drift",
        title="Drift of scale, past the trained depth",
        caption="Scale after every loop, with a straight line through it (thin). A state that a plain recurrence adds "
        "to grows by the same amount at every loop, at any depth: then the line fits. A scale that is held levels off."
        + undrawn_models(models),
        x_label="loop",
        y_label="scale: root mean square of H",
        series=tuple(series),
        log_y=log,
        whole_x=True,
        marks=model_depth_marks(on),
    )


def turning(models: Sequence[ModelView]) -> Figure:
    """Draw the angular step against 1 / s_k, fitted."""
    on = models[:MOST_MODELS]
    pairs = {model.name: _inverse(model) for model in on}
    log = len(on) > 1 and spans_decades([x for xs, _ in pairs.values() for x in xs if x > 0])
    series = []
    for model in on:
        x, y = points(*pairs[model.name], log_x=log, log_y=log)
        fit = model.report.expansion.turning
        series += _with_fit(model, len(on) == 1, x, y, fit, "over s", points_only=True, log_x=log, log_y=log)
    return Figure(
        key="audit-turning",
        title="How far each loop turns the state",
        caption="Angular step against one over the scale before it; deeper loops of a growing state lie to the left. "
        "On a line, what a loop writes stays the same while the state outgrows it: later loops say less and less."
        + undrawn_models(models),
        x_label="1 / scale",
        y_label="angular step",
        series=tuple(series),
        log_x=log,
        log_y=log,
    )


def _inverse(model: ModelView) -> tuple[list[float], list[float]]:
    expansion = model.report.expansion
    pairs = [(1 / s, step) for s, step in zip(expansion.rms, expansion.angular_step, strict=False) if s > 0]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _with_fit(
    model: ModelView,
    alone: bool,
    x: tuple[float, ...],
    y: tuple[float, ...],
    fit: Fit | None,
    per: str,
    points_only: bool = False,
    log_x: bool = False,
    log_y: bool = False,
) -> list[Series]:
    if not x:
        return []
    name, dash = ("measured", "solid") if alone else (model.name, model.dash)
    series = [Series(name, x, y, model.color, dash, points_only=points_only, dot=8)]
    if fit is not None:
        low, high = min(x), max(x)
        along = [
            low * (high / low) ** (i / _STEPS) if log_x else low + (high - low) * i / _STEPS
            for i in range(_STEPS + 1)
        ]
        line = points(along, [fit.intercept + fit.slope * at for at in along], log_x, log_y)
        color = "#6e7781" if alone else model.color
        label = f"line: {number(fit.slope)} {per}, r² {number(fit.r_squared)}"
        series.append(Series(label, *line, color, "dot", guide=True, in_legend=alone))
    return series


def fits(models: Sequence[ModelView]) -> HeadlineTable:
    """Return the fitted lines of several models as a table."""
    groups = (
        ("", ("model",)),
        ("scale against loop", ("slope", "r²")),
        ("angular step against 1 / scale", ("slope", "r²")),
    )
    return HeadlineTable(groups, tuple(_fit_row(model) for model in models))


def _fit_row(model: ModelView) -> tuple[TableCell, ...]:
    expansion = model.report.expansion
    cells = [TableCell(model.name, model.name)]
    for fit in (expansion.growth, expansion.turning):
        values = (fit.slope, fit.r_squared) if fit else (math.nan, math.nan)
        cells += [
            TableCell(figures(value), value) if math.isfinite(value) else TableCell("no fit", math.inf)
            for value in values
        ]
    return tuple(cells)


def undrawn_models(models: Sequence[ModelView]) -> str:
    """Return the words that not every model is drawn, where that is so."""
    return f" The first {MOST_MODELS} of {len(models)} models." if len(models) > MOST_MODELS else ""
