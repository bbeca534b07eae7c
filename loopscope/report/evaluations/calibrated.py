"""Thresholds chosen on one part of the text and measured on another, in a table."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.formatting import percent
from loopscope.report.evaluations.groups import Group
from loopscope.report.evaluations.rules import bounds, excess, exit_evaluations, rule_label
from loopscope.report.study.conditions import estimate
from loopscope.report.study.table import HeadlineTable, TableCell, figures, number
from loopscope.results import Calibration


def calibration_table(groups: Sequence[Group]) -> HeadlineTable | None:
    """Return one row per condition, rule, unit and target, over seeds; None where nothing was calibrated."""
    rows = []
    for group in groups:
        kinds: dict[tuple[str, str, str, float], list[Calibration]] = {}
        for exits in exit_evaluations(group):
            for made in exits.calibrations:
                kinds.setdefault((made.rule, made.unit, made.target, made.allowed), []).append(made)
        rows += [_row(group, *kind, made, bounds(groups)) for kind, made in kinds.items()]
    headings = (
        ("", ("condition", "rule", "per", "target")),
        ("on the test part", ("mean loops", "perplexity", "held")),
    )
    return HeadlineTable(headings, tuple(rows)) if rows else None


def _row(
    group: Group,
    rule: str,
    unit: str,
    target: str,
    allowed: float,
    made: Sequence[Calibration],
    bound: set[str],
) -> tuple[TableCell, ...]:
    tested = [(c.tested_on, c.full_depth) for c in made if c.tested_on]
    loops = estimate("mean_loops", [point.mean_loops for point, _ in tested])
    above = estimate("excess", [excess(point, full) for point, full in tested])
    kept_count = sum(bool(c.held) for c in made)
    unmet = sum(not c.met for c in made)
    asked = (
        f"{percent(allowed - 1)} perplexity"
        if target == "perplexity"
        else f"{number(allowed)} loops or fewer"
    )
    depth = len(made[0].full_depth.left_at)
    return (
        TableCell(group.name, group.name),
        TableCell(rule_label(rule, bound), rule),
        TableCell(unit, unit),
        TableCell(asked, allowed),
        TableCell(f"{figures(loops.mean)} of {depth}", loops.mean) if tested else TableCell("", math.inf),
        TableCell(percent(above.mean / 100), _sortable(above.mean)) if tested else TableCell("", math.inf),
        TableCell(
            f"{kept_count} of {len(made)}" if len(made) > 1 else "yes" if kept_count else "no",
            kept_count / len(made),
            interval=f"{unmet} not to be met" if unmet else "",
        ),
    )


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else math.inf
