"""Records of how firmly a scale is held: by what, how hard it pulls, and the weight for a size that is wanted."""

from dataclasses import dataclass
from typing import Any, Literal

from loopscope.results.readable import Readable

RestingStatus = Literal[
    "held by nothing", "held by the loops", "held by cross-entropy", "held by penalties", "removed"
]
"""What a scale's resting size is up to, the least firm first."""


@dataclass(frozen=True)
class WantedScale:
    """The weight of a norm penalty for an L2 norm that is wanted, over all loops; None where none is named."""

    l2_norm: float
    weight: float | None
    weight_range: tuple[float, float] | None  # what the law's own error makes of it
    cost: float | None  # nats of cross-entropy, at most, once the scale rests there
    why: str


@dataclass(frozen=True)
class RestingScale(Readable):
    """How firmly a scale is held. Where it comes to rest a run's own training shows: `ScaleTrend`."""

    status: RestingStatus
    why: str
    rms: float  # root of the mean square of H over loops, tokens and channels
    l2_norm: float  # that times sqrt(dim): the L2 norm over all loops
    pull: float = 0.0  # how much penalties rise for a scale e times as large, nats
    wanted: WantedScale | None = None  # where an L2 norm was asked for

    def lines(self) -> list[str]:
        """Return by what it is held and why, and the weight for a size that was wanted."""
        return [f"{self.status}. {self.why}" + (f" {self.wanted.why}" if self.wanted else "")]

    def table(self) -> list[dict[str, Any]]:
        """Return one row."""
        return [{"scale": self.status, "RMS": self.rms, "L2 norm": self.l2_norm, "pull": self.pull}]
