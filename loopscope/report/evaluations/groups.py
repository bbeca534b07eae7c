"""The evaluated models of a page by condition, each condition with the look that it has in the page's other figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.looks import ConditionStyle, Looks
from loopscope.report.plots.figure import Mark
from loopscope.report.study.conditions import Estimate, StudyCondition, estimate
from loopscope.results import (
    Comparison,
    DepthCurve,
    DepthVerdict,
    LoopQuality,
    ModelEvaluation,
    TaskEvaluation,
)
from loopscope.results.evaluations import CurveReading

MOST_GROUPS = 12
"""Conditions in one figure: more lines could not be told apart."""


@dataclass(frozen=True)
class Group:
    """One condition at one size over its evaluated seeds; or one model that is no run."""

    key: str  # the name that a comparison uses
    look: ConditionStyle
    models: tuple[ModelEvaluation, ...]
    verdict: DepthVerdict | None = None

    @property
    def name(self) -> str:
        """The condition's name on the page."""
        return self.look.name

    @property
    def color(self) -> str:
        """The condition's colour on the page."""
        return self.look.color

    @property
    def dash(self) -> str:
        """How the condition's lines are dashed."""
        return self.look.dash

    @property
    def trained(self) -> int:
        """Loops the condition was trained with."""
        return self.models[0].trained_loops

    def curves(self, reading: CurveReading) -> list[DepthCurve]:
        """Return the depth curves of one reading, one per seed that has it."""
        return [curve for model in self.models for curve in model.depth if curve.reading == reading]

    @property
    def reading(self) -> CurveReading:
        """The reading that is shown: what a user who runs k loops gets, where that was read."""
        return "at depth" if self.curves("at depth") else "as trained"

    def per_loop(self, field: str, reading: CurveReading | None = None) -> dict[int, Estimate]:
        """Return one figure of quality at every loop, over seeds. Seeds may reach to different depths."""
        values_by_loop: dict[int, list[float]] = {}
        for curve in self.curves(reading or self.reading):
            for entry in curve.per_loop:
                if (value := _field(entry, field)) is not None:
                    values_by_loop.setdefault(entry.loop, []).append(value)
        return {loop: estimate(field, values) for loop, values in sorted(values_by_loop.items())}


def _field(entry: LoopQuality, field: str) -> float | None:
    value: float | None = getattr(entry, field)
    return value


def evaluated_conditions(
    evaluations: Sequence[ModelEvaluation],
    comparison: Comparison | None,
    tasks: Sequence[TaskEvaluation] = (),
) -> list[tuple[str, str | None]]:
    """Return name and size of every condition that was evaluated or compared, in the records' order."""
    measured: list[ModelEvaluation | TaskEvaluation] = [*evaluations, *tasks]
    evaluated = [(entry.condition or entry.name or "model", entry.size) for entry in measured]
    compared = (*comparison.conditions, *_named_in(comparison)) if comparison else ()
    return [*dict.fromkeys(evaluated), *((name, None) for name in dict.fromkeys(compared))]


def _named_in(comparison: Comparison) -> list[str]:
    names = [name for entry in comparison.differences for name in (entry.one, entry.other)]
    names += [entry.condition for entry in comparison.options]
    names += [entry.condition for entry in comparison.matched]
    return names + [entry.condition for entry in comparison.verdicts]


def make_groups(
    evaluations: Sequence[ModelEvaluation],
    conditions: Sequence[StudyCondition],
    comparison: Comparison | None,
    looks: Looks | None = None,
) -> list[Group]:
    """Group evaluations by condition, in the order and with the looks of the page.

    Args:
        looks: those of the page; by default the study's conditions first, then what is of none of them.
    """
    evaluated = evaluated_conditions(evaluations, comparison)
    looks = looks or Looks([*((c.name, c.size) for c in conditions), *evaluated])
    members: dict[tuple[str, str | None], list[ModelEvaluation]] = {}
    for evaluation in evaluations:
        named = evaluation.condition or evaluation.name or "model"
        members.setdefault((named, evaluation.size), []).append(evaluation)
    verdicts = {entry.condition: entry for entry in comparison.verdicts} if comparison else {}
    groups = []
    for (key, size), models in members.items():
        look = looks.of(key, size)
        groups.append(Group(key, look, tuple(models), verdicts.get(look.name, verdicts.get(key))))
    return sorted(groups, key=lambda group: group.look.place)


def group_depth_marks(groups: Sequence[Group]) -> tuple[Mark, ...]:
    """Return a line at every depth that a condition was trained to."""
    depths = sorted({group.trained for group in groups})
    return tuple(
        Mark("x", float(depth), f"trained to loop {depth}" if len(depths) == 1 else "") for depth in depths
    )


def best_loop(losses: dict[int, Estimate]) -> int | None:
    """Return the loop with the least mean loss; None where no loss is finite."""
    finite = {loop: value.mean for loop, value in losses.items() if math.isfinite(value.mean)}
    return min(finite, key=lambda loop: finite[loop]) if finite else None


def undrawn_groups(groups: Sequence[Group], most: int = MOST_GROUPS) -> str:
    """Return the words that not every condition is drawn, where that is so."""
    return f" The first {most} of {len(groups)} conditions." if len(groups) > most else ""
