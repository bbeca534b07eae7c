"""What audits come to: the sentence that heads the page, and the table that compares models."""

import math
from collections.abc import Callable, Sequence

from loopscope.report.audits.cards import drift_ratio, drift_to, range_text
from loopscope.report.audits.models import ModelView
from loopscope.report.audits.verdict_styles import loop_names, share
from loopscope.report.study.table import HeadlineTable, TableCell, figures, number
from loopscope.results import WORST_FIRST, Verdict

_NAMED = 4
"""Models that a sentence names; beyond, it counts them."""


def headline_sentences(models: Sequence[ModelView]) -> list[str]:
    """Return what the audits say, one sentence each, most important first."""
    if len(models) == 1:
        return [_alone(models[0]), models[0].report.why]
    groups = {status: [m.name for m in models if m.report.verdict == status] for status in WORST_FIRST}
    blind = groups["blind"]
    if blind:
        carry = "carries" if len(blind) == 1 else "carry"
        first = f"{len(blind)} of {len(models)} models {carry} a scale that no loss sees: {_listed(blind)}."
    else:
        first = f"None of {len(models)} models carries a scale that no loss sees."
    openings: dict[Verdict, str] = {
        "damped": "Unseen but shrunk between loops",
        "visible": "Seen by the loss",
        "removed": "Removed between loops",
    }
    return [
        first,
        *(f"{openings[status]}: {_listed(groups[status])}." for status in openings if groups[status]),
    ]


def _alone(model: ModelView) -> str:
    report = model.report
    concerned = [loop.loop for loop in report.loops if loop.status == report.verdict]
    everywhere = len(concerned) in (0, len(report.loops))
    where = "every loop" if everywhere else loop_names(concerned)
    onward = "loop to loop" if everywhere else loop_names(concerned)
    match report.verdict:
        case "blind":
            return f"{model.name} is blind: no loss sees the scale that it carries from {onward}."
        case "damped":
            return f"No loss sees the scale of {model.name} at {where}, but it shrinks between loops."
        case "visible":
            return f"The loss sees the scale of {model.name} at {where}."
        case "removed":
            return f"{model.name} carries no scale from loop to loop."


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names)
    return ", ".join(names[:_NAMED]) + f" and {len(names) - _NAMED} more"


def comparison(models: Sequence[ModelView]) -> HeadlineTable:
    """Return the table that compares models, one row each."""
    groups = (
        ("", ("model", "verdict")),
        ("over loops", ("carry", "exposure")),
        ("drift of scale", ("trained depth", "deepest")),
        ("cross-entropy", ("first exit", "last exit")),
        ("", ("objective",)),
    )
    return HeadlineTable(groups, tuple(_row(model) for model in models))


def _row(model: ModelView) -> tuple[TableCell, ...]:
    report = model.report
    deepest = len(report.expansion.rms)
    exits = report.cross_entropy or (math.nan,)
    assumed = " (assumed)" if model.audited.objective_from == "assumed" else ""
    return (
        TableCell(model.name, model.name),
        TableCell(report.verdict, WORST_FIRST.index(report.verdict), badge=report.verdict),
        _span([loop.carry for loop in report.loops], share),
        _span([loop.exposure for loop in report.loops], lambda value: number(value) if value else "nil"),
        _drift(model, model.trained),
        _drift(model, deepest),
        TableCell(figures(exits[0]), _sortable(exits[0])),
        TableCell(figures(exits[-1]), _sortable(exits[-1])),
        TableCell(report.objective + assumed, report.objective),
    )


def _span(values: Sequence[float], write: Callable[[float], str]) -> TableCell:
    """From the least to the most over loops, sorted by the least."""
    finite = [value for value in values if math.isfinite(value)]
    return TableCell(range_text(values, write), min(finite, default=math.inf))


def _drift(model: ModelView, loop: int) -> TableCell:
    return TableCell(drift_to(model, loop), _sortable(drift_ratio(model, loop)), interval=f"loop {loop}")


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else math.inf
