"""Exit rules as a page shows them: their names, one look each, and what they cost against full depth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.evaluations.groups import Group
from loopscope.report.plots.figure import PALETTE, QUIET
from loopscope.results import ExitCurve, ExitEvaluation, ExitPoint


@dataclass(frozen=True)
class RuleLook:
    """One colour per rule wherever it is drawn."""

    color: str
    dash: str


def bounds(groups: Sequence[Group]) -> set[str]:
    """Rules that cannot be run, because they know the labels."""
    return {c.rule for group in groups for exits in evaluated(group) for c in exits.curves if c.bound}


def said_of(rule: str, bound: set[str]) -> str:
    """A rule's name, which says where it is a bound."""
    return f"{rule} (a bound)" if rule in bound else rule


def rule_looks(groups: Sequence[Group]) -> dict[str, RuleLook]:
    """By name. Solid lines read logits at every loop, dotted ones do not; a bound is grey and dashed."""
    curves = [curve for group in groups for exits in evaluated(group) for curve in exits.curves]
    named = {curve.rule: curve for curve in curves if not curve.bound}
    every = [exits for group in groups for exits in evaluated(group)]
    calibrated = [made.rule for exits in every for made in exits.calibrations]
    measured = [speed.rule for exits in every for speed in exits.speeds]
    rules = list(dict.fromkeys([*named, *calibrated, *measured]))
    looks = {
        rule: RuleLook(
            PALETTE[place % len(PALETTE)], "solid" if "logits" in _needs(named.get(rule)) else "dot"
        )
        for place, rule in enumerate(rules)
    }
    return looks | {curve.rule: RuleLook(QUIET, "dash") for curve in curves if curve.bound}


def _needs(curve: ExitCurve | None) -> tuple[str, ...]:
    return curve.needs if curve else ("logits",)


def evaluated(group: Group) -> list[ExitEvaluation]:
    """One per seed whose exits were evaluated."""
    return [model.exits for model in group.models if model.exits is not None]


def excess(point: ExitPoint, full: ExitPoint) -> float:
    """Perplexity above full depth, percent."""
    above = point.loss - full.loss
    return 100 * math.expm1(min(above, 50.0)) if math.isfinite(above) else math.nan
