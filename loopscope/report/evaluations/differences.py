"""Conditions compared in pairs at one loop: a forest plot and the table behind it.

The sign is that of the record: the second minus the first, so that left of zero the second has fewer bits per byte.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.evaluations.formatting import cell, finite_ends, signed
from loopscope.report.looks import Looks
from loopscope.report.plots.figure import OTHER_COLORS, QUIET, Figure, Mark, Series, shorten_apart
from loopscope.report.study.table import HeadlineTable, TableCell, number
from loopscope.results import Comparison, Difference

MOST_PAIRS = 18
"""Pairs in the figure; of more, those with the best condition are drawn. The table has all."""
_BETTER, _WORSE = OTHER_COLORS[2], OTHER_COLORS[1]
_NAME, _ROW = 46, 30


@dataclass(frozen=True)
class _Kind:
    name: str
    color: str
    hollow: bool


_KINDS = (
    _Kind("the second is better", _BETTER, False),
    _Kind("the second is worse", _WORSE, False),
    _Kind("not separated", QUIET, True),
)


def chosen_loop(comparison: Comparison) -> int | None:
    """Return the trained depth that most conditions share, if pairs were compared there; else the deepest compared."""
    loops = {entry.loop for entry in comparison.differences}
    depths = [verdict.trained_loops for verdict in comparison.verdicts]
    common = sorted(set(depths) & loops, key=lambda depth: (-depths.count(depth), -depth))
    return common[0] if common else max(loops, default=None)


def forest(comparison: Comparison, looks: Looks) -> Figure:
    """Draw every difference with its interval, pairs in the order of the page's conditions."""
    loop = chosen_loop(comparison)
    pairs = [e for e in comparison.differences if e.loop == loop and math.isfinite(e.bits_per_byte.mean)]
    selection = _few(pairs)
    ordered = in_page_order(selection, looks)
    every = sorted({name for entry in ordered for name in (entry.one, entry.other)})
    short = dict(
        zip(every, shorten_apart([looks.of(name).name for name in every], _NAME // 2 - 1), strict=True)
    )
    series = [
        made
        for kind in _KINDS
        if (made := _series(kind, [(row, e) for row, e in enumerate(ordered) if _kind(e) is kind]))
    ]
    deep = bool(ordered) and all(finite_ends(entry.bits_per_byte) is None for entry in ordered)
    return Figure(
        key="evaluation-differences",
        title=f"Conditions compared at loop {loop}",
        caption="Bits per byte of the second minus the first, paired by seed and by window; left of zero the second is "
        "better. "
        + (
            "Too few seeds for intervals: nothing is separated."
            if deep
            else f"Bars: {comparison.confidence:.0%} intervals. Grey: the data does not separate the two."
        )
        + (
            f" {len(selection)} of {len(pairs)} pairs; the table has all."
            if len(selection) < len(pairs)
            else ""
        ),
        x_label="difference in bits per byte",
        y_label="",
        series=tuple(series),
        wide=True,
        marks=(Mark("x", 0.0),),
        y_range=(-len(ordered) + 0.4, 0.6),
        y_ticks=tuple(
            (-float(row), f"{short[entry.other]} − {short[entry.one]}") for row, entry in enumerate(ordered)
        ),
        height=150 + _ROW * max(2, len(ordered)),
        least=620,
    )


def in_page_order(pairs: Sequence[Difference], looks: Looks) -> list[Difference]:
    """Return pairs in the order of the page's conditions."""
    return sorted(pairs, key=lambda entry: (looks.of(entry.one).place, looks.of(entry.other).place))


def _few(pairs: Sequence[Difference]) -> Sequence[Difference]:
    if len(pairs) <= MOST_PAIRS:
        return pairs
    names = list(dict.fromkeys(name for entry in pairs for name in (entry.one, entry.other)))
    standing = dict.fromkeys(names, 0.0)
    for entry in pairs:
        standing[entry.other] += entry.bits_per_byte.mean
        standing[entry.one] -= entry.bits_per_byte.mean
    best = min(standing, key=lambda name: standing[name])
    return [entry for entry in pairs if best in (entry.one, entry.other)][:MOST_PAIRS]


def _kind(entry: Difference) -> _Kind:
    if not entry.separated:
        return _KINDS[2]
    return _KINDS[0] if entry.bits_per_byte.mean < 0 else _KINDS[1]


def _series(kind: _Kind, rows: Sequence[tuple[int, Difference]]) -> Series | None:
    if not rows:
        return None
    middle = tuple(entry.bits_per_byte.mean for _, entry in rows)
    ends = [
        finite_ends(entry.bits_per_byte) or (entry.bits_per_byte.mean, entry.bits_per_byte.mean)
        for _, entry in rows
    ]
    barred = any(low != high for low, high in ends)
    return Series(
        kind.name,
        middle,
        tuple(-float(row) for row, _ in rows),
        kind.color,
        low=tuple(low for low, _ in ends) if barred else (),
        high=tuple(high for _, high in ends) if barred else (),
        bars="x",
        points_only=True,
        dot=11,
        hollow=(kind.hollow,) * len(rows),
        notes=tuple(_note(entry) for _, entry in rows),
    )


def _note(entry: Difference) -> str:
    p = "" if entry.p_corrected is None else f", corrected p {number(entry.p_corrected)}"
    return f"{entry.other} minus {entry.one}: {signed(entry.bits_per_byte.mean)}{p}, {entry.seeds} seeds"


def difference_table(comparison: Comparison, looks: Looks) -> HeadlineTable | None:
    """Return all pairs at the chosen loop as a table; None where nothing was compared."""
    loop = chosen_loop(comparison)
    pairs = in_page_order([entry for entry in comparison.differences if entry.loop == loop], looks)
    rows = tuple(_row(entry, looks) for entry in pairs)
    headings = (
        ("", ("first", "second")),
        (f"bits per byte at loop {loop}", ("second minus first", "p", "p corrected", "")),
        ("", ("seeds",)),
    )
    return HeadlineTable(headings, rows) if rows else None


def _row(entry: Difference, looks: Looks) -> tuple[TableCell, ...]:
    one, other = (looks.of(name).name for name in (entry.one, entry.other))
    return (
        TableCell(one, one),
        TableCell(other, other),
        cell(entry.bits_per_byte, plus=True),
        _probability(entry.p),
        _probability(entry.p_corrected),
        TableCell("separated" if entry.separated else "not separated", int(entry.separated)),
        TableCell(str(entry.seeds), entry.seeds),
    )


def _probability(p: float | None) -> TableCell:
    return TableCell("", math.inf) if p is None or not math.isfinite(p) else TableCell(number(p), p)
