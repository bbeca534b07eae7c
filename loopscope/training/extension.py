"""A run that is made longer: what goes on as if it had been that long from the start, and what does not.

Batches, dropout, drawn depths, warm-up and a constant learning rate follow from (seed, step) alone, so they go on
exactly. What is laid out over the whole run is laid out anew over the longer one, and that is said with its values.
"""

from collections.abc import Iterator

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective
from loopscope.training.config import TrainingConfig
from loopscope.training.optim import learning_rate
from loopscope.training.timetable import Timetable


def extension_note(
    config: TrainingConfig,
    objective: Objective | ObjectiveConfig,
    old: int,
    new: int,
    done: int,
    compiled: bool = False,
) -> str:
    """Return what there is to say of a run that was to have `old` steps and is to have `new`, more than that.

    Args:
        done: steps that it has behind it.
        compiled: whether steps are compiled from here on that were not before.
    """
    moved = []
    if config.schedule != "constant":
        was, now = (learning_rate(done, steps, config) for steps in (old, new))
        moved.append(
            f"the {config.schedule} schedule now ends at step {new}: step {done + 1} has learning rate {now:.3g}, "
            f"where the run of {old} steps {'ended with' if done >= old else 'had'} {was:.3g}"
        )
    before, after = (Timetable(objective, steps) for steps in (old, new))
    moved += _moved_phases(before, after, done)
    phase = after.at(done + 1)
    placement = after.objective(phase).placement
    if placement.moves and before.at(done + 1).number == phase.number:
        of = "phase" if after.scheduled else "run"
        was, now = (min(1.0, table.at(done + 1).progress(done + 1)) for table in (before, after))
        if was != now:
            moved.append(
                f"what placement {placement.name} changes over the {of} is {now:.0%} of the way at step "
                f"{done + 1}, where the run of {old} steps was {was:.0%} of it"
            )
    if compiled:
        moved.append("steps are compiled from here on (training.compile), and bits may differ")
    if not moved:
        return f"longer: {new} steps instead of {old}, as if it had been so long from the start"
    return (
        f"longer: {new} steps instead of {old}. {'; '.join(moved)}. A run of {new} steps from the start would not have "
        "been the same until here"
    )


def _moved_phases(before: Timetable, after: Timetable, done: int) -> Iterator[str]:
    """Phases of a schedule that end at other steps than before, and the one that step `done` + 1 is in now."""
    for was, now in zip(before.phases[:-1], after.phases[:-1], strict=True):
        if was.last != now.last:
            yield f"phase {now.number} of objective.schedule ({now.name}) now ends at step {now.last}, not {was.last}"
    was, now = before.at(done), after.at(done + 1)
    if now.number < was.number:
        yield f"step {done + 1} is in phase {now.number} ({now.name}) again, after phase {was.number} ({was.name})"
