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
class StaticAudit(Readable):
    """What a config alone says of a model, before any training."""

    name: str
    verdict: Verdict
    why: str
    loops: tuple[StaticLoop, ...]

    def lines(self) -> list[str]:
        """Return the verdict and why."""
        return [f"{self.name}: {self.verdict}. {self.why}."]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per loop."""
        return [{"loop": loop.loop, "verdict": loop.status, "why": loop.reason} for loop in self.loops]
