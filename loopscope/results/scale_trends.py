"""Record of where a run's scale is going: from its own training, to twice the steps."""

from dataclasses import dataclass
from typing import Any

from loopscope.results.readable import Readable

AT_REST = 0.05
"""Relative change to twice the steps below which a scale counts as at rest."""


@dataclass(frozen=True)
class ScaleTrend(Readable):
    """The L2 norm of H over all loops at half of the steps and now, and what it will be at twice as many."""

    steps: int
    half: float  # at half of them
    now: float
    twice: float  # foretold for twice the steps, training going on as it does
    low: float  # 80 % interval
    high: float

    @property
    def change(self) -> float:
        """How much larger it will be at twice the steps: 0.1 is a tenth."""
        return self.twice / self.now - 1

    @property
    def at_rest(self) -> bool:
        """Whether it hardly moves any more."""
        return abs(self.change) < AT_REST

    def lines(self) -> list[str]:
        """Return where it comes from and where it goes, in one sentence."""
        way = (
            "It is about at rest"
            if self.at_rest
            else "It still grows"
            if self.change > 0
            else "It still falls"
        )
        return [
            f"{way}: in the log of training the L2 norm of H over all loops was {self.half:.3g} at step "
            f"{self.steps // 2:,} and is {self.now:.3g} at step {self.steps:,}; at twice the steps, training as now, "
            f"it will be {self.twice:.3g} (80 %: {self.low:.3g} to {self.high:.3g})."
        ]

    def table(self) -> list[dict[str, Any]]:
        """Return one row."""
        return [
            {
                "at half": self.half,
                "now": self.now,
                "at twice": self.twice,
                "low": self.low,
                "high": self.high,
            }
        ]
