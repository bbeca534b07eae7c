"""Is looping worth it: looped models beside unlooped ones of the same parameters and of the same arithmetic."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.formatting import cell, finite_ends
from loopscope.report.plots.figure import Figure, Series, Symbol, shorten
from loopscope.report.study.table import HeadlineTable, TableCell, number
from loopscope.results import Comparison, Matched

_ROLES: dict[str, tuple[str, Symbol]] = {
    "looped": ("#009e73", "circle"),
    "same parameters": ("#0072b2", "square"),
    "same FLOPs": ("#d55e00", "diamond"),
}
_NAME, _ROW = 34, 32


def matched_figure(comparison: Comparison) -> Figure:
    """Draw bits per byte of every row with its interval, in the order of the record."""
    rows = [entry for entry in comparison.matched if math.isfinite(entry.bits_per_byte.mean)]
    series = [
        made
        for role in _ROLES
        if (made := _series(role, [(row, e) for row, e in enumerate(rows) if e.role == role]))
    ]
    return Figure(
        key="evaluation-matched",
        title="Looped beside unlooped",
        caption="Bits per byte on held-out text; left is better."
        + (f" Bars: {comparison.confidence:.0%} intervals over seeds." if any(s.low for s in series) else ""),
        x_label="bits per byte",
        y_label="",
        series=tuple(series),
        wide=True,
        y_range=(-len(rows) + 0.4, 0.6),
        y_ticks=tuple((-float(row), shorten(entry.condition, _NAME)) for row, entry in enumerate(rows)),
        height=150 + _ROW * max(2, len(rows)),
        least=520,
    )


def _series(role: str, rows: Sequence[tuple[int, Matched]]) -> Series | None:
    if not rows:
        return None
    color, symbol = _ROLES[role]
    ends = [finite_ends(e.bits_per_byte) or (e.bits_per_byte.mean, e.bits_per_byte.mean) for _, e in rows]
    barred = any(low != high for low, high in ends)
    return Series(
        role,
        tuple(entry.bits_per_byte.mean for _, entry in rows),
        tuple(-float(row) for row, _ in rows),
        color,
        low=tuple(low for low, _ in ends) if barred else (),
        high=tuple(high for _, high in ends) if barred else (),
        bars="x",
        points_only=True,
        symbol=symbol,
        notes=tuple(f"{e.condition}, {e.loops} loops, {e.parameters:,} parameters" for _, e in rows),
    )


def matched_table(comparison: Comparison) -> HeadlineTable | None:
    """Return looped models and their baselines, one row each; None where no baseline was compared."""
    headings = (
        ("", ("condition", "what it is", "loops", "parameters")),
        ("FLOPs", ("training, whole run", "inference, per token")),
        ("bits per byte", ("held out", "minus the looped", "")),
    )
    rows = tuple(_row(entry) for entry in comparison.matched)
    return HeadlineTable(headings, rows) if rows else None


def _row(entry: Matched) -> tuple[TableCell, ...]:
    against = TableCell("", math.inf) if entry.against is None else cell(entry.against, plus=True)
    return (
        TableCell(entry.condition, entry.condition),
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
