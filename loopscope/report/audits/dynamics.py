"""Dynamics: what one loop does to a small change, how large its steps are, and whether they agree."""

from collections.abc import Sequence
from dataclasses import replace

from loopscope.report.audits.drift import undrawn_models
from loopscope.report.audits.line_series import Quantity, lines
from loopscope.report.audits.models import MOST_MODELS, ModelView, model_depth_marks
from loopscope.report.plots.figure import Figure, Mark, Series, spans_decades

_JACOBIAN: tuple[Quantity, ...] = (
    ("spectral radius", lambda report: [entry.spectral_radius for entry in report.dynamics]),
    ("radial", lambda report: [entry.radial for entry in report.dynamics]),
    ("angular", lambda report: [entry.angular for entry in report.dynamics]),
)
_COSINES: tuple[Quantity, ...] = (
    ("of the state and the next", lambda report: report.expansion.direction_cosine),
    ("of an update and the next", lambda report: report.expansion.update_cosine),
)


def jacobian(models: Sequence[ModelView]) -> Figure:
    """Draw the spectral radius of the loop map, its radial and its angular part."""
    on = models[:MOST_MODELS]
    series, panels = lines(on, _JACOBIAN)
    unsettled = {
        model.name: {entry.loop for entry in model.report.dynamics if not entry.converged} for model in on
    }
    marked = tuple(_hollow(entry, unsettled[on[0].name if len(on) == 1 else entry.name]) for entry in series)
    return Figure(
        key="audit-dynamics",
        title="What a loop does to a small change",
        caption="The loop map, linearised at each state. Above 1 (dashed) a change grows. Radial: what a change of "
        "scale keeps; angular: how strongly directions are pulled apart or together."
        + (" Hollow: the estimate had not settled." if any(unsettled.values()) else "")
        + undrawn_models(models),
        x_label="from loop",
        y_label="factor on a small change",
        series=marked,
        panels=panels,
        whole_x=True,
        wide=len(panels) > 1,
        marks=(Mark("y", 1.0),),
    )


def _hollow(series: Series, loops: set[int]) -> Series:
    hollow = tuple(round(x) in loops for x in series.x)
    return replace(series, hollow=hollow) if any(hollow) else series


def step_size(models: Sequence[ModelView]) -> Figure:
    """Draw ‖H_{k+1} - H_k‖ / ‖H_k‖ per loop."""
    on = models[:MOST_MODELS]
    log = spans_decades([value for m in on for value in m.report.expansion.step_size if value > 0], 8)
    series, panels = lines(on, (("step size", lambda report: report.expansion.step_size),), log_y=log)
    return Figure(
        key="audit-step-size",
        title="Size of each step",
        caption="The update of a loop over the state it starts from. Falling towards nil: loops settle, or the state "
        "outgrows them; the drift above says which." + undrawn_models(models),
        x_label="from loop",
        y_label="‖H(k+1) − H(k)‖ / ‖H(k)‖",
        series=series,
        panels=panels,
        log_y=log,
        whole_x=True,
        marks=model_depth_marks(on),
    )


def cosines(models: Sequence[ModelView]) -> Figure:
    """Draw the cosines of successive states and of successive updates."""
    on = models[:MOST_MODELS]
    series, panels = lines(on, _COSINES)
    return Figure(
        key="audit-cosines",
        title="Do loops go on in one direction?",
        caption="Cosine of each state with the next, and of each update with the next. Updates near 1 add the same "
        "vector again and again, which is how a scale runs away." + undrawn_models(models),
        x_label="from loop",
        y_label="cosine",
        series=series,
        panels=panels,
        whole_x=True,
        wide=len(panels) > 1,
        marks=model_depth_marks(on),
    )


def increment(models: Sequence[ModelView]) -> Figure:
    """Draw the radial increment per loop."""
    on = models[:MOST_MODELS]
    values = [value for model in on for value in model.report.expansion.radial_increment]
    log = len(on) > 1 and spans_decades(values)
    series, panels = lines(on, (("increment", lambda report: report.expansion.radial_increment),), log_y=log)
    return Figure(
        key="audit-increment",
        title="What each loop adds along the state",
        caption="Radial increment, in units of scale. Levelling off above nil: growth without end, by this much at "
        "every loop. Nil: the scale has settled." + undrawn_models(models),
        x_label="from loop",
        y_label="added to the scale",
        series=series,
        panels=panels,
        log_y=log,
        whole_x=True,
        marks=model_depth_marks(on),
    )
