"""Which phase of a schedule of objectives a trained model is judged under, and what is said of the others."""

import json
from pathlib import Path

from loopscope.jobs.evaluate import run_sections
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.phase import objective_name, phases_over
from loopscope.results.checkpoints import model_folder
from loopscope.results.layout import STATE
from loopscope.results.run_phases import phase_at


def judged_phase(objective: ObjectiveConfig, path: Path) -> tuple[ObjectiveConfig, str | None]:
    """Return the objective that a model is judged under, and a sentence that names the phases that it is not.

    It is the last phase; of a run that has not come so far, the one that its checkpoint is in.

    Args:
        path: of the model, with the run's config where it is a run.
    """
    if objective.schedule is None:
        return objective, None
    words = [objective_name(phase) for phase in objective.phases]
    training = run_sections(path).get("training") or {}
    steps, step, number = training.get("steps"), _step_of(path), len(words)
    if type(steps) is int:  # not where epochs say how long: nothing here knows how many steps these are
        phases = phases_over(objective, steps)
        words = [phase.in_words() for phase in phases]
        number = phase_at(phases, steps if step is None else step).number
    others = [word for other, word in enumerate(words, start=1) if other != number]
    which = "the last phase" if number == len(words) else f"phase {number} of {len(words)}"
    return objective.phases[number - 1], (
        f"Its objective has a schedule, and it is judged under {which}, {words[number - 1]}; not under "
        f"{', '.join(others)}."
    )


def _step_of(path: Path) -> int | None:
    """The step of the checkpoint that a path leads to; None where nothing says."""
    try:
        step = json.loads((model_folder(path) / STATE).read_text(encoding="utf-8")).get("step")
    except (OSError, ValueError, AttributeError):
        return None
    return step if type(step) is int else None
