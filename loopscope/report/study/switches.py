"""Where a condition's objective was exchanged for another during training: marks in figures, and words on the page."""

from collections.abc import Sequence

from loopscope.report.looks import ConditionStyle
from loopscope.report.plots.figure import Mark
from loopscope.report.study.conditions import StudyCondition
from loopscope.results import RunPhase


def phases_of(condition: StudyCondition) -> tuple[RunPhase, ...]:
    """Return the phases of a condition's runs; none where one objective trained throughout.

    Seeds of a condition share its config, so the first run that has phases speaks for all.
    """
    return next((run.phases for run in condition.runs if run.phases), ())


def switch_marks(
    shown: Sequence[tuple[StudyCondition, ConditionStyle]], panels: bool = False
) -> tuple[Mark, ...]:
    """Return a mark at the first step of every phase but the first; one for conditions that switch at the same step.

    Args:
        panels: whether every condition has a panel of its own.
    """
    switches: dict[tuple[int, int | None], list[str]] = {}
    for panel, (condition, look) in enumerate(shown):
        for phase in phases_of(condition)[1:]:
            text = phase.name if len(shown) == 1 else f"{look.name}: {phase.name}"
            switches.setdefault((phase.first, panel if panels else None), []).append(text)
    return tuple(
        Mark("x", float(step), "; ".join(texts), panel=panel) for (step, panel), texts in switches.items()
    )


def phase_sentences(conditions: Sequence[tuple[StudyCondition, str]]) -> list[str]:
    """Return what conditions with a schedule were trained on, and when.

    Args:
        conditions: each with its name on the page.
    """
    return [
        f"{name} was trained on {', then '.join(phase.in_words() for phase in phases)}. Dashed lines in the figures "
        "over training stand where a phase begins; an audit of the trained model judges it under the last one."
        for condition, name in conditions
        if (phases := phases_of(condition))
    ]
