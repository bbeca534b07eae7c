"""Interventions: what it costs to change the scale by hand, measured without training."""

import math
from collections.abc import Sequence
from functools import partial

from loopscope.report.audits.drift import undrawn_models
from loopscope.report.audits.line_series import lines
from loopscope.report.audits.models import MOST_MODELS, ModelView
from loopscope.report.plots.figure import Figure, Mark, Series, points, ramp
from loopscope.report.study.table import choose_loops
from loopscope.results import AuditReport

MODES = {
    "none": "left alone",
    "freeze_loop1": "frozen at loop 1's scale",
    "remove_radial": "radial updates removed",
}


_MOST_LINES = 6
"""Doubled loops drawn of a deep model: more lines than that could not be followed."""


def final_sweep(models: Sequence[ModelView]) -> Figure:
    """Draw the cross-entropy of the last exit against the factor on H_K."""
    on = models[:MOST_MODELS]
    series = []
    for model in on:
        pairs = sorted(
            (factor, loss)
            for name, loss in model.report.final_scale_sweep.items()
            if (factor := _number(name)) > 0
        )
        x, y = points([factor for factor, _ in pairs], [loss for _, loss in pairs], log_x=True)
        if x:
            series.append(Series(model.name, x, y, model.color, model.dash))
    ticks = sorted({value for entry in series for value in entry.x})
    return Figure(
        key="audit-final-sweep",
        title="The last state, made smaller or larger",
        caption="H at the last loop is multiplied before its readout. Flat: this exit cannot tell how large its state "
        "is. A curve: it can, and pays for a wrong size." + undrawn_models(models),
        x_label="factor on the last state",
        y_label="cross-entropy of the last exit, nats",
        series=tuple(series),
        log_x=True,
        marks=(Mark("x", 1.0, "as trained"),),
        x_ticks=tuple((value, f"{value:g}×") for value in ticks) if len(ticks) <= 9 else (),
        y_range=_not_magnified([value for entry in series for value in entry.y]),
    )


def clamping(models: Sequence[ModelView]) -> Figure:
    """Draw the cross-entropy per exit with the scale frozen, or its growth removed."""
    on = models[:MOST_MODELS]
    names = list(dict.fromkeys(name for model in on for name in model.report.radial_clamp))

    series, panels = lines(on, [(MODES.get(name, name), partial(_clamped, name)) for name in names])
    return Figure(
        key="audit-clamp",
        title="What growth of scale is worth",
        caption="Every state is held at its token's scale at loop 1, or loses the part of each update that lies along "
        "it. Where that costs little, the growth carried nothing that the exits read."
        + undrawn_models(models),
        x_label="exit after loop",
        y_label="cross-entropy, nats",
        series=series,
        panels=panels,
        whole_x=True,
        wide=len(panels) > 1,
    )


def _clamped(name: str, report: AuditReport) -> Sequence[float]:
    """One mode's cross-entropy per exit."""
    clamped = report.radial_clamp.get(name)
    return clamped.cross_entropy if clamped else ()


def rescaling(models: Sequence[ModelView]) -> Figure:
    """Draw what doubling H_k costs at exit k and at every later one; a line per doubled loop."""
    on = models[:MOST_MODELS]
    series = []
    for panel, model in enumerate(on):
        own = model.report.cross_entropy
        doubled = sorted((int(_number(name)), changed) for name, changed in model.report.rescaled.items())
        picked = choose_loops(len(doubled), _MOST_LINES)
        for loop, changed in (doubled[loop_number - 1] for loop_number in picked):
            exits = range(max(loop, 1), len(own) + 1)
            costs = [
                changed.cross_entropy[k - 1] - own[k - 1] for k in exits if k <= len(changed.cross_entropy)
            ]
            x, y = points(exits, costs)
            if x:
                series.append(Series(f"loop {loop} doubled", x, y, ramp(loop - 1, len(own)), panel=panel))
    return Figure(
        key="audit-rescaled",
        title="A state doubled, and every later exit",
        caption="H is doubled after one loop, one line per loop from orange (first) to violet (last), and followed to "
        "each exit from there on: how long a wrong scale is felt. At its own exit a readout that normalises feels "
        "nothing; later exits feel it because larger states turn less." + undrawn_models(models),
        x_label="exit after loop",
        y_label="cost in cross-entropy, nats",
        series=tuple(series),
        panels=tuple(model.name for model in on) if len(on) > 1 else ("",),
        whole_x=True,
        wide=len(on) > 1,
        y_range=_not_magnified([value for entry in series for value in entry.y]),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _not_magnified(values: Sequence[float]) -> tuple[float, float] | None:
    """At least a tenth of a nat from top to bottom: below, a flat line would be drawn as a mountain of rounding."""
    if not values or max(values) - min(values) >= 0.1:
        return None
    middle = (max(values) + min(values)) / 2
    return middle - 0.06, middle + 0.06
