"""Verdict cards: the word, the sentence of why, loop by loop, and what was tried against it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loopscope.report.audits.models import ModelView
from loopscope.report.audits.resting import resting_line
from loopscope.report.audits.verdict_styles import STATUS_STYLES, loop_names, share
from loopscope.report.study.table import number
from loopscope.results import AuditReport, LoopVerdict, Verdict

_FROM = {
    "model": "Judged under its own objective, {}",
    "given": "Judged under the objective that was given, {}",
    "assumed": "It does not say what it was trained on: {} was assumed",
}


MOST_CELLS = 8
"""Cells of a strip; of deeper models one cell holds several loops of one status."""


@dataclass(frozen=True)
class LoopCell:
    """One loop of a card's strip, or several next to each other that have one status."""

    loops: str
    status: Verdict
    carry: str
    bar: float  # carry as percent of a bar, 0 to 100
    exposure: str
    last: bool


@dataclass(frozen=True)
class RemedyCell:
    """One remedy, as a card shows it."""

    change: str
    verdict: Verdict
    cost: str


@dataclass(frozen=True)
class Card:
    """What the card of one model shows: verdict, loops, drift, remedies."""

    name: str
    verdict: Verdict
    gloss: str
    why: str
    resting: str  # how firmly the scale is held, and the weight for a size that was wanted
    judged: str
    others: tuple[tuple[str, Verdict, str], ...]  # objective, verdict, why
    facts: tuple[tuple[str, str], ...]
    loops: tuple[LoopCell, ...]
    remedies: tuple[RemedyCell, ...]
    helps: str  # what the remedies come to, in a sentence


def card(model: ModelView) -> Card:
    """Make the card of one model."""
    report = model.report
    remedies = tuple(
        RemedyCell(entry.change, entry.verdict, _signed(entry.cost)) for entry in report.remedies
    )
    return Card(
        name=model.name,
        verdict=report.verdict,
        gloss=STATUS_STYLES[report.verdict].gloss,
        why=report.why,
        resting=resting_line(model.audited),
        judged=_FROM[model.audited.objective_from].format(report.objective or "no name"),
        others=tuple((other.objective, other.verdict, other.why) for other in model.audited.others),
        facts=_figures(model),
        loops=tuple(_cell(loops, last=loops[-1] is report.loops[-1]) for loops in _runs(report.loops)),
        remedies=remedies,
        helps=_helps(report),
    )


def _runs(loops: Sequence[LoopVerdict]) -> list[list[LoopVerdict]]:
    """The loops in order, in groups of one status, none longer than it takes to keep to the cells there are."""
    longest = -(-len(loops) // MOST_CELLS)
    runs: list[list[LoopVerdict]] = []
    for loop in loops:
        if runs and runs[-1][-1].status == loop.status and len(runs[-1]) < longest:
            runs[-1].append(loop)
        else:
            runs.append([loop])
    return runs


def _cell(loops: Sequence[LoopVerdict], last: bool) -> LoopCell:
    carries = [abs(loop.carry) for loop in loops if math.isfinite(loop.carry)]
    return LoopCell(
        loops=loop_names([loop.loop for loop in loops]),
        status=loops[0].status,
        carry=range_text([loop.carry for loop in loops], share),
        bar=round(100 * min(1.0, sum(carries) / len(carries)), 1) if carries else 0.0,
        exposure=range_text(
            [loop.exposure for loop in loops], lambda value: number(value) if value else "nil"
        ),
        last=last,
    )


def range_text(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Write a range from the least value to the most; one value where both read the same."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "not finite"
    low, high = write(min(finite)), write(max(finite))
    return low if low == high else f"{low} to {high}"


def _figures(model: ModelView) -> tuple[tuple[str, str], ...]:
    audited, expansion = model.audited, model.report.expansion
    figures = [("loops", str(model.trained)), ("parameters", f"{audited.parameters:,}")]
    if trained := drift_to(model, model.trained):
        figures.append((f"scale, loop 1 to {model.trained}", trained))
    if len(expansion.rms) > model.trained and (deepest := drift_to(model, len(expansion.rms))):
        figures.append((f"to loop {len(expansion.rms)}", deepest))
    return tuple(figures)


def drift_to(model: ModelView, loop: int) -> str:
    """Write the drift at a loop, `× 3.7`, over loop 1; empty where it was not measured or nothing was there to grow."""
    ratio = drift_ratio(model, loop)
    return f"× {number(ratio)}" if math.isfinite(ratio) else ""


def drift_ratio(model: ModelView, loop: int) -> float:
    """Return s at a loop over s_1, or NaN."""
    rms = model.report.expansion.rms
    return rms[loop - 1] / rms[0] if 1 <= loop <= len(rms) and rms[0] else math.nan


def _signed(cost: float) -> str:
    if not math.isfinite(cost):
        return "not finite"
    if abs(cost) < 5e-4:
        return "0"
    return ("+" if cost > 0 else "−") + number(abs(cost))


def _helps(report: AuditReport) -> str:
    if not report.remedies:
        return ""
    closing = [entry for entry in report.remedies if entry.verdict in ("visible", "removed")]
    counts = f"{len(closing)} of {len(report.remedies)} changes close it"
    return f"Tried on the model as it is, not trained for it: {counts}. Costs are in cross-entropy, over the exits."


@dataclass(frozen=True)
class RemedyTable:
    """Table of remedies: changes across, models down; a cell is None where a change was not tried on a model."""

    changes: tuple[str, ...]
    rows: tuple[tuple[str, Verdict, tuple[RemedyCell | None, ...]], ...]


def remedy_table(models: Sequence[ModelView]) -> RemedyTable | None:
    """Return the remedies of several models side by side; None where none was tried."""
    tried = [card(model) for model in models if model.report.remedies]
    changes = tuple(dict.fromkeys(entry.change for each in tried for entry in each.remedies))
    rows = []
    for each in tried:
        by_change = {entry.change: entry for entry in each.remedies}
        rows.append((each.name, each.verdict, tuple(by_change.get(change) for change in changes)))
    return RemedyTable(changes, tuple(rows)) if rows else None
