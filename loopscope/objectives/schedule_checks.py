"""What a schedule of objectives must be like: phases in order, ends of one kind. Importable without torch."""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from loopscope.objectives.placement_config import placement_of

if TYPE_CHECKING:
    from loopscope.objectives.config import PhaseConfig

FORM = "[{until: 0.9, placement: dense}, {placement: terminal}]"
ENDS = ("until", "until_step")


def check_schedule(phases: "Sequence[PhaseConfig]", beside: Collection[str]) -> None:
    """Hold the phases of a schedule to each other.

    Args:
        beside: terms of the objective that are given beside its schedule.

    Raises:
        ValueError: no phase, terms beside the schedule, ends out of order, of two kinds or out of bounds, a phase
            without an end that is not the last, or one that trains the gate alone.
    """
    if not phases:
        raise ValueError(f"schedule is empty; give its phases in order, schedule: {FORM}, or leave it out")
    if beside:
        them = "them" if len(beside) > 1 else "it"
        raise ValueError(
            f"{', '.join(sorted(beside))} beside schedule: every phase has terms of its own, and shares none. Put "
            f"{them} into the phases, schedule: {FORM}, or remove the schedule"
        )
    for number, phase in enumerate(phases):
        if placement_of(phase).gate_only:
            raise ValueError(
                f"schedule.{number}.placement {phase.placement!r} trains the gate alone and holds all else fixed: that "
                "is a run of its own, which starts from a trained one (training.weights), and no phase of a schedule"
            )
    kinds = {name for phase in phases for name in ENDS if getattr(phase, name) is not None}
    if len(kinds) > 1:
        raise ValueError(
            "schedule has ends as shares (until) and as steps (until_step); give all of them in one of the two"
        )
    name = kinds.pop() if kinds else "until"
    ends = [getattr(phase, name) for phase in phases]
    for number, end in enumerate(ends):
        where = f"schedule.{number}.{name}"
        if end is None and number < len(ends) - 1:
            raise ValueError(
                f"schedule.{number} has no end, and phase {number + 2} follows; give it until: (a share of the steps) "
                "or until_step: (its last step)"
            )
        if end is not None and name == "until" and not 0 < end <= 1:
            raise ValueError(
                f"{where} is {end:g}; it is a share of the run's steps, above 0 and up to 1 (until_step takes a step)"
            )
        if end == 1 and name == "until" and number < len(ends) - 1:
            raise ValueError(f"{where} is 1, the end of the run, and phase {number + 2} follows; lower it")
        if end is not None and name == "until_step" and end < 1:
            raise ValueError(f"{where} is {end}; it is the number of a step, from 1 up")
    last = ends[-1]
    if last is not None and (name == "until_step" or last < 1):
        raise ValueError(
            f"schedule.{len(ends) - 1}.{name} is {last:g}, and no phase follows: the last one goes on to the end of "
            f"the run. Remove its {name}, or add a phase"
        )
    for number, (one, other) in enumerate(pairwise(end for end in ends if end is not None)):
        if other <= one:
            raise ValueError(
                f"schedule.{number + 1}.{name} is {other:g}, and the phase before ends at {one:g}: each ends after the "
                "one before; put them in order"
            )
