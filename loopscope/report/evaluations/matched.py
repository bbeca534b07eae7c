"""Is looping worth it: looped models beside unlooped ones of the same parameters and of the same arithmetic."""

import math

from loopscope.report.evaluations.formatting import cell, finite_ends
from loopscope.report.looks import Looks
from loopscope.report.plots.figure import Figure, Series, Symbol, shorten_apart
from loopscope.report.study.table import HeadlineTable, TableCell, number
from loopscope.results import Comparison, Matched

_SYMBOLS: dict[str, Symbol] = {"looped": "circle", "same parameters": "square", "same FLOPs": "diamond"}
_NAME, _ROW = 34, 32


def matched_figure(comparison: Comparison, looks: Looks) -> Figure:
    """Draw bits per byte of every row with its interval, in the order of the record, conditions in their colours."""
    rows = [entry for entry in comparison.matched if math.isfinite(entry.bits_per_byte.mean)]
    names = shorten_apart([looks.of(entry.condition).name for entry in rows], _NAME)
    series = [_series(row, entry, looks) for row, entry in enumerate(rows)]
    return Figure(
        key="evaluation-matched",
        title="Looped beside unlooped",
        caption="Bits per byte on held-out text; left is better. Circles loop; squares have the same parameters and "
        "diamonds the same FLOPs, and do not."
        + (f" Bars: {comparison.confidence:.0%} intervals over seeds." if any(s.low for s in series) else ""),
        x_label="bits per byte",
        y_label="",
        series=tuple(series),
        wide=True,
        y_range=(-len(rows) + 0.4, 0.6),
        y_ticks=tuple((-float(row), name) for row, name in enumerate(names)),
        height=150 + _ROW * max(2, len(rows)),
        least=520,
    )


def _series(row: int, entry: Matched, looks: Looks) -> Series:
    look = looks.of(entry.condition)
    ends = finite_ends(entry.bits_per_byte)
    return Series(
        look.name,
        (entry.bits_per_byte.mean,),
        (-float(row),),
        look.color,
        low=ends[:1] if ends else (),
        high=ends[1:] if ends else (),
        bars="x",
        points_only=True,
        symbol=_SYMBOLS[entry.role],
        in_legend=False,
        notes=(f"{entry.role}: {entry.loops} loops, {entry.parameters:,} parameters",),
    )


def matched_table(comparison: Comparison, looks: Looks) -> HeadlineTable | None:
    """Return looped models and their baselines, one row each; None where no baseline was compared."""
    headings = (
        ("", ("condition", "what it is", "loops", "parameters")),
        ("FLOPs", ("training, whole run", "inference, per token")),
        ("bits per byte", ("held out", "minus the looped", "")),
    )
    rows = tuple(_row(entry, looks.of(entry.condition).name) for entry in comparison.matched)
    return HeadlineTable(headings, rows) if rows else None


def _row(entry: Matched, name: str) -> tuple[TableCell, ...]:
    against = TableCell("", math.inf) if entry.against is None else cell(entry.against, plus=True)
    return (
        TableCell(name, name),
        TableCell(entry.role, entry.role),
        TableCell(str(entry.loops), entry.loops),
        TableCell(f"{entry.parameters:,}", entry.parameters),
        _count(entry.training_flops),
        _count(entry.inference_flops),
        cell(entry.bits_per_byte),
        against,
        TableCell(*_verdict(entry)),
    )


def _verdict(entry: Matched) -> tuple[str, int]:
    if entry.against is None:
        return "", 3
    if not entry.separated:
        return "not separated", 1
    return ("looping is better", 0) if entry.against.mean > 0 else ("looping is worse", 2)


def _count(value: float | None) -> TableCell:
    return (
        TableCell("", math.inf)
        if value is None or not math.isfinite(value)
        else TableCell(number(value), value)
    )
