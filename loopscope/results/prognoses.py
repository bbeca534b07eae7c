"""Records of a depth prognosis: what 2K and 4K loops will do to the loss of a model, foretold from K + 2 of them.

Changes are in nats per token against the trained depth K, so `exp` of one is the factor on perplexity. Every loop is
read as the last of an unroll of so many, which is what a user who runs so many gets.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from loopscope.results.readable import Readable

Fate = Literal["settles", "improves", "drifts", "breaks", "not told"]
"""What more loops than trained come to."""
FATES: tuple[Fate, ...] = ("improves", "settles", "drifts", "breaks")
"""Those that can be true of a model, best first."""
UNCHANGED = 0.01
"""Share of perplexity that counts as no change: 1 %, as in the verdict of a depth curve."""
BREAKS = 0.5
"""Share from which on a loss of perplexity counts as breaking: half of it more."""


@dataclass(frozen=True)
class LoopSigns:
    """What one loop shows. Means over tokens; changes are from the loop before, and 0 at loop 1."""

    loop: int
    cross_entropy: float  # of this exit, nats per token
    rms: float  # s_k
    radial_step: float  # log s_k − log s_{k−1}
    angular_step: float  # ‖u_k − u_{k−1}‖ / sqrt(dim), u of RMS 1: 0 to 2
    straightness: float  # cosine of u_k − u_{k−1} and the step before it; 0 at loops 1 and 2
    divergence: float  # KL of this exit's prediction from the exit's before, nats
    entropy: float  # of this exit's prediction, nats


@dataclass(frozen=True)
class ForetoldDepth:
    """The loss at one depth against the trained one: the middle and the ends of an interval."""

    loops: int
    change: float  # nats per token
    low: float
    high: float


@dataclass(frozen=True)
class Prognosis(Readable):
    """What more loops will do to one model, why, and what it was told from."""

    fate: Fate
    why: str
    trained_loops: int
    level: float = 0.0  # how often the intervals are meant to hold what comes: 0.8
    at: tuple[ForetoldDepth, ...] = ()
    signs: tuple[LoopSigns, ...] = ()  # loops 1 to K + 2
    scale_blind: bool | None = (
        None  # whether the readout divides by the state's size; None where it is not known
    )
    tokens: int | None = (
        None  # with a label, that signs were measured on; None where that was not written down
    )

    def lines(self) -> list[str]:
        """Return the fate and why."""
        return [f"More loops than trained: {self.fate}. {self.why}"]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per depth that is foretold; changes in nats per token."""
        return [
            {"loops": row.loops, "change": row.change, "from": row.low, "to": row.high} for row in self.at
        ]


def fate_of(twice: float, four_times: float) -> Fate:
    """Return what changes of the loss at 2K and 4K loops amount to.

    Args:
        twice: nats per token at twice the trained depth, less those at the trained depth.
        four_times: the same at four times.

    Returns:
        `breaks` where perplexity is 50 % up at either, or not finite; `drifts` where it is 1 % up at either; `improves`
        where it is 1 % down at 4K; else `settles`.
    """
    worst = max(twice, four_times)
    if not math.isfinite(twice) or not math.isfinite(four_times) or worst >= math.log1p(BREAKS):
        return "breaks"
    if worst > math.log1p(UNCHANGED):
        return "drifts"
    return "improves" if four_times < -math.log1p(UNCHANGED) else "settles"
