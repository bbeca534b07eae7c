"""The phases of a run: consecutive steps that are trained on one objective."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunPhase:
    """Consecutive steps of a run that have one objective. Steps are 1-based, and `last` is one of them."""

    number: int  # of the objective in the schedule, 1-based
    first: int
    last: int
    name: str  # of its objective (`dense + norm_penalty`)

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return self.last - self.first + 1

    def progress(self, step: int) -> float:
        """How much of the phase is done at the beginning of a step, from 0 to 1."""
        return (step - self.first) / max(1, self.last - self.first)

    def in_words(self) -> str:
        """Return what it was trained on and when: `dense (steps 1-900)`."""
        when = f"steps {self.first:,}-{self.last:,}" if self.steps > 1 else f"step {self.first:,}"
        return f"{self.name} ({when})"


def phase_at(phases: Sequence[RunPhase], step: int) -> RunPhase:
    """Return the phase of a step; the last one beyond the end."""
    return next((phase for phase in phases if step <= phase.last), phases[-1])


def phases_taken(records: Sequence[Mapping[str, Any]], steps: int) -> tuple[RunPhase, ...]:
    """Return the phases in which a run's steps were really taken, from its metrics; none where it has no schedule.

    A run that was made longer may have gone back to an earlier phase.
    """
    begun = [record for record in records if record["kind"] == "phase"]
    ends = [*(record["step"] - 1 for record in begun[1:]), steps][: len(begun)]
    return tuple(
        RunPhase(record["phase"], record["step"], last, record["name"])
        for record, last in zip(begun, ends, strict=True)
    )
