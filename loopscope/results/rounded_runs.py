"""Records of a rounding audit: what coarser numbers do to the state and to each exit, loop by loop.

The reference is the same model in fp32 on the same tokens. Loops count from 1, and go past the trained depth.
"""

from dataclasses import dataclass
from typing import Any, Literal

from loopscope.results.readable import Readable

RoundingOutcome = Literal["dies out", "stays", "grows", "breaks", "not measured"]
"""What becomes of a rounding from loop to loop."""
ROUNDING_WORST_FIRST: tuple[RoundingOutcome, ...] = ("breaks", "grows", "stays", "dies out", "not measured")
"""In the order in which a report lists them."""
ROUNDED_BY_DEFAULT = "bf16"
"""Number format that an audit tries where none is named."""
LOST = 0.01
"""Share by which an exit's perplexity is higher than in fp32 where it counts as lost: 1 %."""
BROKEN = 0.1
"""The same where the format counts as broken: 10 %."""


@dataclass(frozen=True)
class RoundedLoop:
    """One loop of a model in another number format, against the same loop in fp32. Means over tokens."""

    loop: int
    state: float  # ‖H'_k − H_k‖ / ‖H_k‖
    added: float  # ‖H'_k − H_k‖ over what the loops have added, ‖H_k − H_0‖: without the size of the start
    direction: float  # ‖u'_k − u_k‖, u of RMS 1, over sqrt(dim): the relative difference of directions
    cross_entropy: float  # of this exit in the format, nats per token
    excess: float  # that less fp32's
    stalled: float  # share of channels that the loop left as they were though fp32 moved them
    overflowed: float  # share of channels that are not finite
    emptied: float  # share of tokens whose features are zero though their state is not


@dataclass(frozen=True)
class Rounding(Readable):
    """What one number format does to one model: the verdict, why, and every loop that was measured."""

    format: str  # bf16, fp16, bf16-autocast, int8, int4, fp8
    outcome: RoundingOutcome
    why: str
    loops: tuple[RoundedLoop, ...] = ()
    growth: float | None = None  # d log(added) / d loop; mean over tokens. None where it cannot be fitted
    growth_interval: tuple[float, float] | None = None  # 95 %, over tokens
    power: float | None = (
        None  # p where the error grows as loop^p fits better than as exp(growth · loop); else None
    )
    lost_at: int | None = None  # first loop whose exit loses 1 % of perplexity
    broken_at: int | None = None  # first loop that is not finite, empty, or loses 10 %
    tokens: int = 0

    def lines(self) -> list[str]:
        """Return the outcome and why."""
        return [f"{self.format}: {self.outcome}. {self.why}"]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per loop; shares, and nats per token."""
        return [
            {
                "loop": row.loop,
                "state off by": row.state,
                "of what loops added": row.added,
                "direction off by": row.direction,
                "cross-entropy": row.cross_entropy,
                "over fp32": row.excess,
            }
            for row in self.loops
        ]
