"""Which objective trains at which steps of a run, and where a run that goes on stands in that."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective, build_objective
from loopscope.objectives.phase import phases_over
from loopscope.results.run_phases import RunPhase, phase_at
from loopscope.training.throughput import FlopsPerToken


class Timetable:
    """The phases of a run of so many steps, each with its objective. A plain objective is one phase.

    Args:
        objective: one for the whole run, or a config, which may have a schedule.

    Raises:
        ValueError: a schedule that leaves no step for one of its phases.
    """

    def __init__(self, objective: Objective | ObjectiveConfig, steps: int) -> None:
        self.phases: tuple[RunPhase, ...]
        self._objectives: Sequence[Objective]
        if isinstance(objective, ObjectiveConfig):
            self.phases = phases_over(objective, steps)
            self._objectives = [build_objective(phase) for phase in objective.phases]
        else:
            self.phases = (RunPhase(1, 1, steps, objective.name),)
            self._objectives = [objective]

    @property
    def objectives(self) -> Sequence[Objective]:
        """What the phases are trained on, in order."""
        return self._objectives

    @property
    def scheduled(self) -> bool:
        """Whether there is more than one phase."""
        return len(self.phases) > 1

    def at(self, step: int) -> RunPhase:
        """Return the phase of a step."""
        return phase_at(self.phases, step)

    def objective(self, phase: RunPhase) -> Objective:
        """Return what a phase is trained on."""
        return self._objectives[phase.number - 1]

    def standing(self, step: int, records: Iterable[Mapping[str, Any]]) -> RunPhase:
        """Return the phase in which the last of `step` steps was taken, by the run's metrics where those say it.

        It need not be the one that the timetable has for that step: a run that is made longer may go back to an
        earlier phase.
        """
        begun = [
            record["phase"] for record in records if record["kind"] == "phase" and record["step"] <= step
        ]
        numbered = {phase.number: phase for phase in self.phases}
        return numbered.get(begun[-1] if begun else 0) or self.at(max(1, step))

    def costs(
        self, flops_per_token: FlopsPerToken | Sequence[FlopsPerToken] | None
    ) -> Sequence[FlopsPerToken] | None:
        """Return what a token costs in every phase, from one cost for all, one per phase, or None."""
        if flops_per_token is None or not callable(flops_per_token):
            return flops_per_token
        return [flops_per_token] * len(self.phases)
