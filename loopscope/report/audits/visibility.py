"""Visibility per loop, as a table whose cells are tinted by how much is seen: direct by path, total per term."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopscope.report.audits.models import ModelView
from loopscope.report.audits.verdict_styles import GROWN_IN_WORDS
from loopscope.report.audits.verdict_styles import share as share_named
from loopscope.report.study.table import choose_loops, number
from loopscope.results import SEEN, AuditReport, LoopVisibility, Radial

MOST_COLUMNS = 8
"""Loops across; deeper models show the first, the last and some between."""
_TOP = 10.0
"""Nats per e-fold at which a cell has its full tint."""


@dataclass(frozen=True)
class VisibilityCell:
    """One cell of the table: nats per e-fold, the gradient's radial share, and how strongly it is tinted, 0 to 1."""

    text: str
    share: str
    tint: float


@dataclass(frozen=True)
class VisibilityRows:
    """Rows of the table that are of one kind, under a heading."""

    heading: str
    judged: bool  # whether the verdict rests on it
    rows: tuple[tuple[str, tuple[VisibilityCell, ...]], ...]


@dataclass(frozen=True)
class VisibilityTable:
    """The table of what one model's loss sees, loop by loop."""

    name: str
    loops: tuple[int, ...]
    left_out: bool  # whether there are loops that are not shown
    groups: tuple[VisibilityRows, ...]


def visibility_table(model: ModelView) -> VisibilityTable:
    """Return direct visibility by path, exposure, total by term, and what each readout could see by itself."""
    report = model.report
    picked = choose_loops(len(report.loops), MOST_COLUMNS)
    groups = [
        VisibilityRows("direct: the terms that read this loop's own state", True, _direct(report, picked)),
        VisibilityRows("what the scale meets, here or where it is carried", True, _exposure(report, picked)),
        VisibilityRows("total: through the rest of the unroll too", False, _total(report, picked)),
        VisibilityRows("by itself, whatever the objective", False, _own(report, picked)),
    ]
    filled = tuple(group for group in groups if group.rows)
    return VisibilityTable(model.name, tuple(picked), len(picked) < len(report.loops), filled)


def _direct(report: AuditReport, picked: Sequence[int]) -> tuple[tuple[str, tuple[VisibilityCell, ...]], ...]:
    """`cross_entropy@2/readout` stands in the row `cross_entropy, through the readout`, at loop 2."""
    loops = _by_loop(report.visibility)
    rows = dict.fromkeys(_without_loop(name) for entry in report.visibility for name in entry.direct)
    return tuple((_path_named(row), _cells([_sum(loops.get(k), row) for k in picked])) for row in rows)


def _sum(entry: LoopVisibility | None, row: str) -> Radial | None:
    members = [radial for name, radial in entry.direct.items() if _without_loop(name) == row] if entry else []
    if not members:
        return None
    return Radial(
        math.fsum(radial.d_log_scale for radial in members if math.isfinite(radial.d_log_scale)),
        sum(radial.absolute for radial in members),
        max(radial.share for radial in members),
    )


def _exposure(
    report: AuditReport, picked: Sequence[int]
) -> tuple[tuple[str, tuple[VisibilityCell, ...]], ...]:
    if not report.loops:
        return ()
    return (
        ("exposure", tuple(_cell(report.loops[k - 1].exposure) for k in picked)),
        (
            f"exposure of a state {GROWN_IN_WORDS} times as large",
            tuple(_cell(report.loops[k - 1].exposure_grown) for k in picked),
        ),
    )


def _total(report: AuditReport, picked: Sequence[int]) -> tuple[tuple[str, tuple[VisibilityCell, ...]], ...]:
    """The whole loss first; of deep models the terms of the loops that are shown."""
    loops = _by_loop(report.visibility)
    terms = dict.fromkeys(name for entry in report.visibility for name in entry.total)
    ordered = [term for term in terms if term == "loss"] + [term for term in terms if term != "loss"]
    kept = [term for term in ordered if _loop_of(term) is None or _loop_of(term) in picked]
    return tuple(
        (
            "the whole loss" if term == "loss" else _term_named(term),
            _cells([loops[k].total.get(term) if k in loops else None for k in picked]),
        )
        for term in kept
    )


def _own(report: AuditReport, picked: Sequence[int]) -> tuple[tuple[str, tuple[VisibilityCell, ...]], ...]:
    loops = _by_loop(report.visibility)
    rows: list[tuple[str, tuple[VisibilityCell, ...]]] = []
    if report.readout:
        own = report.readout
        rows.append(
            ("each exit's own cross-entropy", _cells([own[k - 1] if k <= len(own) else None for k in picked]))
        )
    if loops:
        responses = [loops[k].readout_response if k in loops else math.nan for k in picked]
        rows.append(
            (
                "readout's response to scale (0 hides it, 1 raw)",
                tuple(
                    VisibilityCell(number(round(value, 4)) if math.isfinite(value) else "", "", 0.0)
                    for value in responses
                ),
            )
        )
    return tuple(rows)


def _cells(radials: Sequence[Radial | None]) -> tuple[VisibilityCell, ...]:
    return tuple(
        VisibilityCell("", "", 0.0) if radial is None else _cell(radial.absolute, radial.share)
        for radial in radials
    )


def _cell(value: float, share: float | None = None) -> VisibilityCell:
    share_text = (
        "" if share is None or not math.isfinite(share) or value < SEEN else f"{share_named(share)} radial"
    )
    if not math.isfinite(value):
        return VisibilityCell("not finite", "", 0.0)
    tint = 0.0 if value < SEEN else min(1.0, 0.2 + 0.8 * math.log10(value / SEEN) / math.log10(_TOP / SEEN))
    return VisibilityCell("nil" if value == 0 else number(value), share_text, round(tint, 2))


def _by_loop(entries: Sequence[LoopVisibility]) -> Mapping[int, LoopVisibility]:
    return {entry.loop: entry for entry in entries}


def _without_loop(name: str) -> str:
    term, _, path = name.partition("/")
    return f"{term.partition('@')[0]}/{path}"


def _loop_of(term: str) -> int | None:
    loop = term.partition("@")[2]
    return int(loop) if loop.isdecimal() else None


def _path_named(row: str) -> str:
    term, _, path = row.partition("/")
    how = {"state": "reading the state", "": ""}.get(path, f"through the {path}")
    return f"{term.replace('_', ' ')}, {how}" if how else term.replace("_", " ")


def _term_named(term: str) -> str:
    name, _, loop = term.partition("@")
    return name.replace("_", " ") + (f" of loop {loop}" if loop else "")
