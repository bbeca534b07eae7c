"""The evaluated models of a page by condition, each condition with the look that it has in the page's other figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.plots.figure import Mark, line_style
from loopscope.report.study.conditions import Estimate, StudyCondition, estimate
from loopscope.results import Comparison, DepthCurve, DepthVerdict, LoopQuality, ModelEvaluation
from loopscope.results.evaluations import CurveReading

MOST_GROUPS = 12
"""Conditions in one figure: more lines could not be told apart."""


@dataclass(frozen=True)
class Group:
    """One condition at one size over its evaluated seeds; or one model that is no run."""

    key: str  # the name that a comparison uses
    name: str
    color: str
    dash: str
    models: tuple[ModelEvaluation, ...]
    verdict: DepthVerdict | None = None

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
        return {loop: estimate(values) for loop, values in sorted(values_by_loop.items())}


def _field(entry: LoopQuality, field: str) -> float | None:
    value: float | None = getattr(entry, field)
    return value


def make_groups(
    evaluations: Sequence[ModelEvaluation],
    conditions: Sequence[StudyCondition],
    comparison: Comparison | None,
) -> list[Group]:
    """Group evaluations in the order and with the looks of the study's conditions.

    What is of none of them comes last.
    """
    members: dict[tuple[str, str | None], list[ModelEvaluation]] = {
        (condition.name, condition.size): [] for condition in conditions
    }
    for evaluation in evaluations:
        named = evaluation.condition or evaluation.name or "model"
        members.setdefault((named, evaluation.size), []).append(evaluation)
    verdicts = {entry.condition: entry for entry in comparison.verdicts} if comparison else {}
    keys = [key for key, _ in members]
    groups = []
    for number, ((key, size), models) in enumerate(members.items()):
        name = f"{key} ({size})" if keys.count(key) > 1 else key
        if models:
            groups.append(
                Group(key, name, *line_style(number), tuple(models), verdicts.get(name, verdicts.get(key)))
            )
    return groups


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
