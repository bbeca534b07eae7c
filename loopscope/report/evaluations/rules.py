"""Exit rules as a page shows them: their names, one look each, and what they cost against full depth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.evaluations.groups import Group
from loopscope.report.plots.figure import OTHER_COLORS, QUIET
from loopscope.results import ExitCurve, ExitEvaluation, ExitPoint


@dataclass(frozen=True)
class RuleStyle:
    """How one exit rule is drawn: one colour, wherever it is."""

    color: str
    dash: str


def bounds(groups: Sequence[Group]) -> set[str]:
    """Return the names of rules that cannot be run, because they know the labels."""
    return {c.rule for group in groups for exits in exit_evaluations(group) for c in exits.curves if c.bound}


def rule_label(rule: str, bound: set[str]) -> str:
    """Return a rule's name, which says where it is a bound."""
    return f"{rule} (a bound)" if rule in bound else rule


def rule_styles(groups: Sequence[Group]) -> dict[str, RuleStyle]:
    """Return how each rule is drawn, by name. Solid lines read logits at every loop; a bound is grey and dashed."""
    curves = [curve for group in groups for exits in exit_evaluations(group) for curve in exits.curves]
    named = {curve.rule: curve for curve in curves if not curve.bound}
    every = [exits for group in groups for exits in exit_evaluations(group)]
    calibrated = [made.rule for exits in every for made in exits.calibrations]
    measured = [speed.rule for exits in every for speed in exits.speeds]
    rules = list(dict.fromkeys([*named, *calibrated, *measured]))
    styles = {
        rule: RuleStyle(
            OTHER_COLORS[index % len(OTHER_COLORS)], "solid" if "logits" in _needs(named.get(rule)) else "dot"
        )
        for index, rule in enumerate(rules)
    }
    return styles | {curve.rule: RuleStyle(QUIET, "dash") for curve in curves if curve.bound}


def _needs(curve: ExitCurve | None) -> tuple[str, ...]:
    return curve.needs if curve else ("logits",)


def exit_evaluations(group: Group) -> list[ExitEvaluation]:
    """Return the evaluations of exits of a condition, one per seed that has some."""
    return [model.exits for model in group.models if model.exits is not None]


def excess(point: ExitPoint, full: ExitPoint) -> float:
    """Return perplexity above full depth, in percent."""
    above = point.loss - full.loss
    return 100 * math.expm1(min(above, 50.0)) if math.isfinite(above) else math.nan
