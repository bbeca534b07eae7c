"""Records of what a config alone says of a model, before any training."""

from dataclasses import dataclass
from typing import Any

from loopscope.results.audits import Verdict
from loopscope.results.readable import Readable


@dataclass(frozen=True)
class StaticLoop:
    """What a config alone says of one loop."""

    loop: int
    status: Verdict
    reason: str
    gradient: bool = (
        True  # whether a gradient goes back through it: not where backpropagation is cut short of it
    )


@dataclass(frozen=True)
class StaticPhase:
    """What a config alone says of one phase of a schedule of objectives."""

    name: str  # of its objective (`dense + norm_penalty`)
    when: str  # `steps 1-900`, or shares of the run where nobody knows how many steps it has
    verdict: Verdict
    why: str
    loops: tuple[StaticLoop, ...]
    share: float  # of the run's steps
    flops_per_token: int  # of one of its training steps


@dataclass(frozen=True)
class StaticAudit(Readable):
    """What a config alone says of a model, before any training.

    Where the objective has a schedule, verdict and loops are those of its worst phase.
    """

    name: str
    verdict: Verdict
    why: str
    loops: tuple[StaticLoop, ...]
    phases: tuple[StaticPhase, ...] = ()  # of a schedule; empty where one objective trains throughout
    resting: str = ""  # what the size at which the scale rests is up to; of a schedule, in its last phase
    deeper: str = ""  # on more loops than trained: what of them a config decides, and what not

    def lines(self) -> list[str]:
        """Return the verdict and why, of the whole and of every phase, and what is said of more loops."""
        return [
            f"{self.name}: {self.verdict}. {self.why}.",
            *([f"Scale {self.resting}."] if self.resting else []),
            *(
                f"Phase {number}, {phase.name} ({phase.when}, {phase.flops_per_token:,} FLOPs per token): "
                f"{phase.verdict}. {phase.why}."
                for number, phase in enumerate(self.phases, start=1)
            ),
            *([f"{self.deeper}."] if self.deeper else []),
        ]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per loop; of every phase where there are some."""
        if not self.phases:
            return [_row(loop) for loop in self.loops]
        return [
            {"phase": number, **_row(loop)}
            for number, phase in enumerate(self.phases, start=1)
            for loop in phase.loops
        ]


def _row(loop: StaticLoop) -> dict[str, Any]:
    return {"loop": loop.loop, "verdict": loop.status, "why": loop.reason}
