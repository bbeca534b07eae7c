"""Exit trade-off curves: what every rule gives up for the loops it saves."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.formatting import percent
from loopscope.report.evaluations.groups import Group
from loopscope.report.evaluations.rules import (
    RuleStyle,
    bounds,
    excess,
    exit_evaluations,
    rule_label,
    rule_styles,
)
from loopscope.report.plots.figure import QUIET, Figure, Mark, Series, Symbol
from loopscope.report.study.conditions import estimate
from loopscope.report.study.table import number
from loopscope.results import Calibration, ExitCurve, ExitPoint
from loopscope.results.evaluations import Unit

PANELS = 6
"""Conditions in one figure."""
TARGET = 1.0
"""The line drawn where no calibration says otherwise: percent of perplexity above full depth."""
_TICKS = 36
"""Whole loops across the page up to which each has a tick."""
_TOP = 10.0
"""Percent above full depth where the figure is cut: a rule worse than that is not worth its loops."""

_WHO: dict[Unit, str] = {
    "sequence": "A sequence leaves the batch as a whole, and that saves time.",
    "token": "Every token stops on its own.",
}
_READ = (
    " Low and to the left is good. Solid: the rule reads logits at every loop; dotted: it does not. Squares: "
    "everything stops at one depth. Grey and dashed: a bound that knows the labels, no rule that can be run."
)
_DIAMONDS = (
    " Diamonds: thresholds chosen on one part of the text, measured on another; hollow where the target did not "
    "hold."
)


def trade_off(groups: Sequence[Group], unit: Unit, brief: bool = False) -> Figure:
    """Draw perplexity above full depth against mean loops, one panel per condition.

    Args:
        groups: all of the page; the figure takes the first few that have curves.
        unit: what leaves as one.
        brief: a figure before has said how to read it.
    """
    on = [group for group in groups if any(_curves(group, unit))]
    panels = on[:PANELS]
    styles = rule_styles(groups)
    series: list[Series] = []
    for panel, group in enumerate(panels):
        series += _panel(group, unit, panel, styles)
    targets = sorted({100 * (c.allowed - 1) for g in panels for c in _calibrated(g, unit)}) or [TARGET]
    low, high = _cut(series, max(targets))
    deepest = max((value for entry in series for value in entry.x), default=1.0)
    seeds = [len(exit_evaluations(group)) for group in panels]
    unlike = f" ({', '.join(f'{g.name}: {n}' for g, n in zip(panels, seeds, strict=True))})"
    return Figure(
        key=f"evaluation-exits-{unit}",
        title=f"Early exits per {unit}",
        caption=_WHO[unit]
        + ("" if brief else _READ)
        + (_DIAMONDS if not brief and any(map(bool, (_calibrated(g, unit) for g in panels))) else "")
        + (f" Means over seeds{unlike if len(set(seeds)) > 1 else ''}." if max(seeds, default=0) > 1 else "")
        + _unmeasured(groups, on)
        + f" The level line is the target, {' or '.join(percent(at / 100) for at in targets)}."
        + _beyond(series, low, high)
        + (f" The first {len(panels)} of {len(on)} conditions." if len(panels) < len(on) else ""),
        x_label="mean loops",
        y_label="perplexity above full depth, %",
        series=tuple(series),
        panels=tuple(group.name for group in panels) if len(panels) > 1 else ("",),
        whole_x=True,
        wide=True,
        x_range=(0.85, deepest + 0.15),
        x_ticks=tuple((float(loop), str(loop)) for loop in range(1, round(deepest) + 1))
        if deepest * len(panels) <= _TICKS
        else (),
        y_range=(low, high),
        marks=tuple(Mark("y", at) for at in targets),
        height=460,
        least=195 * len(panels) if len(panels) > 1 else 0,
    )


def _unmeasured(groups: Sequence[Group], on: Sequence[Group]) -> str:
    missing = [group.name for group in groups if not exit_evaluations(group)]
    return f" Exits of {', '.join(missing)} were not measured." if on and missing else ""


def _cut(series: Sequence[Series], target: float) -> tuple[float, float]:
    """What holds every rule from below, and as far up as is worth looking at. A bound may lie far below."""
    values = [value for entry in series for value in entry.y]
    rules = [value for entry in series if entry.color != QUIET for value in entry.y]
    high = max(min(max(values, default=_TOP) * 1.08, _TOP), 2.0 * target)
    return min(min(rules, default=0.0) * 1.15, -0.5 * high), high


def _beyond(series: Sequence[Series], low: float, high: float) -> str:
    cut = [
        at
        for at, beyond in ((low, min), (high, max))
        for values in [[value for entry in series for value in entry.y]]
        if values and not low <= beyond(values) <= high
    ]
    return f" Cut at {' and '.join(percent(at / 100) for at in cut)}." if cut else ""


def _panel(group: Group, unit: Unit, panel: int, styles: dict[str, RuleStyle]) -> list[Series]:
    series = []
    for rule in dict.fromkeys(curve.rule for curve, _ in _curves(group, unit)):
        x, y = _averaged([(c.points, full) for c, full in _curves(group, unit) if c.rule == rule])
        if x:
            series.append(
                Series(
                    rule_label(rule, bounds([group])),
                    x,
                    y,
                    styles[rule].color,
                    styles[rule].dash,
                    panel=panel,
                )
            )
    fixed = [(exits.fixed, exits.fixed[-1]) for exits in exit_evaluations(group) if exits.fixed]
    x, y = _averaged(fixed)
    if x:
        series.append(
            Series(
                "fixed depth",
                x,
                y,
                "#57606a",
                points_only=True,
                dot=8,
                symbol="square",
                panel=panel,
                labels=tuple(f"{value:g}" for value in x),
                places=("top center",) * len(x),
            )
        )
    first = True
    for rule in dict.fromkeys(c.rule for c in _calibrated(group, unit)):
        made = [c for c in _calibrated(group, unit) if c.rule == rule]
        if cloud := _diamonds(rule, made, styles[rule].color, panel, in_legend=first):
            series.append(cloud)
            first = False
    return series


def _diamonds(
    rule: str, made: Sequence[Calibration], color: str, panel: int, in_legend: bool
) -> Series | None:
    symbol: Symbol = "diamond"
    kept = [
        (c.tested_on.mean_loops, above, not c.held, _note(rule, c, above))
        for c in made
        if c.tested_on and math.isfinite(above := excess(c.tested_on, c.full_depth))
    ]
    if not kept:
        return None
    return Series(
        "calibrated",
        tuple(x for x, *_ in kept),
        tuple(y for _, y, *_ in kept),
        color,
        points_only=True,
        dot=11,
        symbol=symbol,
        hollow=tuple(hollow for _, _, hollow, _ in kept),
        notes=tuple(note for *_, note in kept),
        panel=panel,
        in_legend=in_legend,
    )


def _note(rule: str, made: Calibration, above: float) -> str:
    threshold = "" if made.threshold is None else f" at {number(made.threshold)}"
    outcome = "held" if made.held else "did not hold"
    chosen, tested = made.windows
    return (
        f"{rule}{threshold}: chosen on {chosen} windows, tested on {tested}: {percent(above / 100)}, "
        f"target {outcome}"
    )


def _curves(group: Group, unit: Unit) -> list[tuple[ExitCurve, ExitPoint]]:
    """Curves with their model's full depth. A fixed depth is drawn as points, not as a rule."""
    return [
        (curve, exits.fixed[-1])
        for exits in exit_evaluations(group)
        if exits.fixed
        for curve in exits.curves
        if curve.unit == unit and curve.points and curve.rule != "fixed"
    ]


def _calibrated(group: Group, unit: Unit) -> list[Calibration]:
    return [
        made
        for exits in exit_evaluations(group)
        for made in exits.calibrations
        if made.unit == unit
        and made.target == "perplexity"
        and made.tested_on
        and made.rule not in bounds([group])
    ]


def _averaged(
    curves: Sequence[tuple[Sequence[ExitPoint], ExitPoint]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Over seeds, setting by setting: thresholds are the same quantiles of each seed's scores. Fewest loops first."""
    count = max((len(points) for points, _ in curves), default=0)
    whole = [(points, full) for points, full in curves if len(points) == count]
    pairs = []
    for index in range(count):
        x = estimate("mean_loops", [points[index].mean_loops for points, _ in whole]).mean
        y = estimate("excess", [excess(points[index], full) for points, full in whole]).mean
        if math.isfinite(x) and math.isfinite(y):
            pairs.append((x, y))
    pairs.sort()
    return tuple(x for x, _ in pairs), tuple(y for _, y in pairs)
