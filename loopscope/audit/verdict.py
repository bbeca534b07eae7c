"""The verdict: what the measurements say, per loop and for the model, with thresholds named here.

removed  what is done between loops leaves nothing of the scale: carry below `REMOVED`.
visible  a loss term sees it, here or at a loop to which it is carried: exposure of at least `SEEN`.
damped   no term sees it, but the step between loops shrinks it every time: gain below `DAMPED`.
blind    it is carried on and no term sees it.

The last loop is carried nowhere in training; unless a term sees it itself, it takes the verdict of the loop
before it, which its scale comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loopscope.audit.carry import Carry
from loopscope.audit.visibility import LoopVisibility

Status = Literal["removed", "visible", "damped", "blind"]

REMOVED = 0.05
"""A relative change of scale of which less than a twentieth arrives is removed."""
SEEN = 1e-4
"""Nats per e-fold of scale. Blind models measure 1e-8 to 1e-6 (rounding, a norm's eps), seen ones 1e-2 and up."""
DAMPED = 0.99
"""Gain of the step between loops, where it is linear."""


@dataclass(frozen=True)
class LoopVerdict:
    """One loop: its direct visibility, its carry, its exposure, and what follows."""

    loop: int
    status: Status
    direct: float  # sum over terms and paths of the absolute radial gradient, nats per e-fold
    carry: float
    exposure: float


def loop_verdicts(seen: Sequence[LoopVisibility], carried: Sequence[Carry]) -> list[LoopVerdict]:
    """Combine visibility and carry of loops 1..K."""
    direct = [sum(entry.absolute for entry in loop.direct.values()) for loop in seen]
    found: list[LoopVerdict] = []
    for index, carry in enumerate(carried):
        reach, exposure = 1.0, 0.0
        for later in range(index, len(direct)):
            exposure = max(exposure, direct[later] * reach)
            reach *= max(carried[later].mean, 0.0)
        last = index == len(carried) - 1
        status = found[-1].status if last and exposure < SEEN and found else _status(carry, exposure)
        found.append(LoopVerdict(index + 1, status, direct[index], carry.mean, exposure))
    return found


def _status(carry: Carry, exposure: float) -> Status:
    if carry.mean < REMOVED:
        return "removed"
    if exposure >= SEEN:
        return "visible"
    # A norm has a gain below 1 too, but halves it when the state doubles: linear steps do not.
    return "damped" if carry.gain < DAMPED and carry.gain_of_double > 0.9 else "blind"


def model_verdict(loops: Sequence[LoopVerdict]) -> Status:
    """The worst of the loops."""
    found = {loop.status for loop in loops}
    order: tuple[Status, ...] = ("blind", "damped", "visible", "removed")
    return next(status for status in order if status in found)


def why(loops: Sequence[LoopVerdict], terms: Sequence[str]) -> str:
    """One plain sentence."""
    verdict = model_verdict(loops)
    concerned = [loop for loop in loops if loop.status == verdict]
    low, high = min(loop.carry for loop in concerned), max(loop.carry for loop in concerned)
    share = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    most = max(loop.exposure for loop in concerned)
    names = _names([loop.loop for loop in concerned])
    seen_by = ", ".join(terms)
    match verdict:
        case "blind":
            return (
                f"{names[0].upper()}{names[1:]} carry {share} of a change of scale to the next loop, and no loss "
                f"term ({seen_by}) sees it: at most {most:.1e} nats for a scale e times as large."
            )
        case "damped":
            return (
                f"No loss term ({seen_by}) sees the scale of {names}, but the step between loops shrinks it: "
                f"{share} of a change arrives."
            )
        case "visible":
            return (
                f"The scale of {names} is seen by the loss ({seen_by}), there or at a loop it is carried to: up to "
                f"{most:.2g} nats for a scale e times as large."
            )
        case "removed":
            return (
                f"What is done between loops leaves {share} of a change of scale at {names}: it is removed."
            )


def _names(loops: Sequence[int]) -> str:
    if len(loops) == 1:
        return f"loop {loops[0]}"
    if list(loops) == list(range(loops[0], loops[-1] + 1)):
        return f"loops {loops[0]}-{loops[-1]}"
    return "loops " + ", ".join(map(str, loops))
