"""A run that is made longer: what goes on as if it had been that long from the start, and what does not.

Batches, dropout, drawn depths, warm-up and a constant learning rate follow from (seed, step) alone, so they go on
exactly. What is laid out over the whole run is laid out anew over the longer one, and that is said with its values.
"""

from loopscope.objectives.objective import Objective
from loopscope.training.config import TrainingConfig
from loopscope.training.optim import learning_rate


def extension_note(
    config: TrainingConfig, objective: Objective, old: int, new: int, done: int, compiled: bool = False
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
    if objective.placement.moves:
        was, now = (min(1.0, done / max(1, steps - 1)) for steps in (old, new))
        moved.append(
            f"what placement {objective.placement.name} changes over the run is {now:.0%} of the way at step "
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
