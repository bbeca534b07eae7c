"""Speed that was measured, beside what the loops saved and the counted arithmetic allow."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.groups import Group
from loopscope.report.evaluations.rules import rule_styles
from loopscope.report.plots.figure import QUIET, Figure, Series
from loopscope.report.study.table import HeadlineTable, TableCell, figures, number
from loopscope.results import Speed

_LINES = 12
"""Measurements of one rule up to which each has a line from allowed to ideal."""
Measured = tuple[Group, int | None, Speed]


def speed_measurements(groups: Sequence[Group]) -> list[Measured]:
    """Return every measurement of speed with a finite result, with its model's seed."""
    return [
        (group, model.seed, speed)
        for group in groups
        for model in group.models
        for speed in (model.exits.speeds if model.exits else ())
        if math.isfinite(speed.realised) and speed.realised > 0 and math.isfinite(speed.ideal)
    ]


def speed_up(groups: Sequence[Group]) -> Figure:
    """Draw realised against allowed speed-up, on a diagonal; the ideal hollow beside it."""
    kept = speed_measurements(groups)
    styles = rule_styles(groups)
    series: list[Series] = []
    for rule in dict.fromkeys(speed.rule for *_, speed in kept):
        mine = [entry for entry in kept if entry[-1].rule == rule]
        series += _rule(rule, styles[rule].color, mine)
    values = [value for entry in series for value in (*entry.x, *entry.y)]
    ends = (min([1.0, *values]) - 0.08, max([1.0, *values]) + 0.12)
    if series:
        series.insert(0, Series("as fast as allowed", ends, ends, QUIET, "dash", guide=True, in_legend=False))
    return Figure(
        key="evaluation-speed",
        title="Speed-up: realised against allowed",
        caption="Up: seconds at fixed depth over seconds with early exits, measured in turn in one process. Across: "
        "filled, what the counted arithmetic allows, with the readouts that the rule asks for; hollow, the ideal, "
        "loops over mean loops. A filled dot on the dashed line wastes nothing.",
        x_label="speed-up allowed (filled) and ideal (hollow)",
        y_label="speed-up realised",
        series=tuple(series),
        x_range=ends if series else None,
        y_range=ends if series else None,
        wide=True,
        height=460,
    )


def _rule(rule: str, color: str, kept: Sequence[Measured]) -> list[Series]:
    counted = [(g, s, s.allowed) for g, _, s in kept if s.allowed is not None and math.isfinite(s.allowed)]
    lines = (
        []
        if len(counted) > _LINES
        else [
            Series("", (allowed, s.ideal), (s.realised, s.realised), color, guide=True, in_legend=False)
            for _, s, allowed in counted
        ]
    )
    clouds = []
    if counted:
        clouds.append(
            Series(
                rule,
                tuple(allowed for *_, allowed in counted),
                tuple(s.realised for _, s, _ in counted),
                color,
                points_only=True,
                notes=tuple(_note(g, s) for g, s, _ in counted),
            )
        )
    clouds.append(
        Series(
            rule,
            tuple(s.ideal for *_, s in kept),
            tuple(s.realised for *_, s in kept),
            color,
            points_only=True,
            dot=9,
            symbol="square",
            hollow=(True,) * len(kept),
            notes=tuple(_note(g, s) for g, _, s in kept),
            in_legend=not counted,
        )
    )
    return lines + clouds


def _note(group: Group, speed: Speed) -> str:
    allowed = "not counted" if speed.allowed is None else number(speed.allowed)
    return (
        f"{group.name}, per {speed.unit}, batch {speed.batch}: {number(speed.mean_loops)} loops, "
        f"realised {number(speed.realised)}, allowed {allowed}, ideal {number(speed.ideal)}"
    )


def speed_table(groups: Sequence[Group]) -> HeadlineTable | None:
    """Return measurements of speed, one row each; None where none was made."""
    headings = (
        ("", ("condition", "seed", "rule", "per", "batch", "mean loops")),
        ("speed-up", ("realised", "allowed", "ideal", "realised of allowed")),
        ("", ("device", "threads")),
    )
    rows = tuple(_row(*entry) for entry in speed_measurements(groups))
    return HeadlineTable(headings, rows) if rows else None


def _row(group: Group, seed: int | None, speed: Speed) -> tuple[TableCell, ...]:
    share = None if speed.allowed is None or not speed.allowed > 0 else speed.realised / speed.allowed
    return (
        TableCell(group.name, group.name),
        TableCell("" if seed is None else str(seed), -1 if seed is None else seed),
        TableCell(speed.rule, speed.rule),
        TableCell(speed.unit, speed.unit),
        TableCell(f"{speed.batch} × {speed.sequence}", speed.batch),
        TableCell(figures(speed.mean_loops), speed.mean_loops),
        TableCell(f"{figures(speed.realised)} ×", speed.realised, interval=_pairs(speed)),
        _times(speed.allowed),
        _times(speed.ideal),
        TableCell("" if share is None else f"{100 * share:.0f} %", math.inf if share is None else share),
        TableCell(speed.device, speed.device),
        TableCell(str(speed.threads), speed.threads),
    )


def _pairs(speed: Speed) -> str:
    """The span of single pairs: how far the measurement can be trusted."""
    ratios = [f / e for f, e in zip(speed.fixed_seconds, speed.exit_seconds, strict=False) if e > 0]
    return f"{figures(min(ratios))} to {figures(max(ratios))}" if len(ratios) > 1 else ""


def _times(value: float | None) -> TableCell:
    return (
        TableCell("", math.inf)
        if value is None or not math.isfinite(value)
        else TableCell(f"{figures(value)} ×", value)
    )
