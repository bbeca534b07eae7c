"""The verdict: what the measurements say, per loop and for the model, with thresholds named here.

removed  what is done between loops leaves nothing of the scale: carry below `REMOVED`.
visible  a loss term sees it, here or at a loop to which it is carried: exposure of at least `SEEN`.
damped   no term sees it, but every loop shrinks a large state: slope below `DAMPED`.
blind    it is carried on and no term sees it.

The last loop is carried nowhere in training; unless a term sees it itself, it takes the verdict of the loop
before it, which its scale comes from. An only loop has none before it: it is visible, or counts as removed, since
without a recurrence there is nothing that carries a scale on.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from loopscope.audit.visibility import GROWN
from loopscope.results import REMOVED, SEEN, WORST_FIRST, Carry, LoopVerdict, LoopVisibility, Verdict

HIDES = 0.02
"""A readout is scale-invariant where its response to scale, at `GROWN` times the size, is below this over `GROWN`.
A norm's eps lets eps / (mean square + eps) through, which fades as 1 / s²; unlooped layers after the loop show
scale by their own residual, which fades as 1 / s and is counted."""
ROUNDING = 2e-5
"""A readout's response to scale that is rounding: fp32 leaves about 1e-7 over the step of the difference, 1e-2."""
DAMPED = 0.99
"""Slope: what one step between loops and one loop leave of a large state, whatever they add beside."""


def loop_verdicts(seen: Sequence[LoopVisibility], carried: Sequence[Carry]) -> list[LoopVerdict]:
    """Combine visibility and carry of loops 1..K into a verdict per loop.

    Args:
        seen: visibility, one record per loop.
        carried: carry, one record per loop; the last one goes a loop deeper.

    Raises:
        ValueError: a carry that is not a number: no verdict can rest on it.
    """
    for carry in carried:
        if not math.isfinite(carry.mean):
            raise ValueError(
                f"the carry of loop {carry.loop} is not a number: every state there is zero or not finite, so no "
                "verdict can be given. Audit tokens that the model does not map to zero"
            )
    direct = [math.fsum(entry.absolute for entry in loop.direct.values()) for loop in seen]
    # What a norm's eps lets through is not counted: it fades as the state grows.
    counted = [
        math.fsum(
            entry.absolute
            for name, entry in loop.direct.items()
            if not (name.endswith("/readout") and hides_scale(loop))
        )
        for loop in seen
    ]
    grown = [loop.grown for loop in seen]
    verdicts: list[LoopVerdict] = []
    for index, carry in enumerate(carried):
        grown_exposure = exposure(grown, carried, index)
        sees = max(exposure(counted, carried, index), grown_exposure)
        status = verdict_on(carry, sees)
        if index == len(carried) - 1 and sees < SEEN:
            status = verdicts[-1].status if verdicts else "removed"
        elif len(carried) == 1:
            status = "visible"
        verdicts.append(
            LoopVerdict(
                loop=index + 1,
                status=status,
                direct=direct[index],
                carry=carry.mean,
                exposure=exposure(direct, carried, index),
                exposure_grown=grown_exposure,
            )
        )
    return verdicts


def saturated_loops(seen: Sequence[LoopVisibility], terms: Mapping[str, Tensor]) -> list[int]:
    """Return the loops whose exits the loss reads where it is exactly 0 at all of them, else none.

    Such a loss has no gradient left to see with: the model would be called blind, whatever its readouts show.

    Args:
        terms: values of the loss's terms, as `Objective.split` gives them.
    """
    values = [float(term) for name, term in terms.items() if name.startswith("cross_entropy")]
    return (
        []
        if any(values)
        else [loop.loop for loop in seen if any(n.endswith("/readout") for n in loop.direct)]
    )


def check_not_saturated(read: Sequence[int]) -> None:
    """Raise ValueError where the loss is exactly 0 at every exit that it reads.

    Args:
        read: those loops, as `saturated_loops` gives them; none where the loss is not.
    """
    if read:
        raise ValueError(
            f"the cross-entropy is exactly 0 at {named_loops(read)}, all that the loss reads: every prediction is "
            "right and certain to the last bit, so no gradient is left, and what the loss sees of the scale cannot be "
            "measured. "
            "Audit text that the model does not know by heart (--data), or an earlier checkpoint"
        )


def hides_scale(loop: LoopVisibility) -> bool:
    """Return whether this loop's readout is scale-invariant, but for its norm's eps."""
    return loop.readout_response_grown * GROWN < HIDES


def shows_little(loop: LoopVisibility) -> bool:
    """Return whether a readout that counts as hiding the scale shows some of it.

    What fades as 1/s (a coda's residual) is shown; what fades as 1/s² (a norm's eps) is not.
    """
    grown = loop.readout_response_grown
    return hides_scale(loop) and grown > ROUNDING and grown * GROWN**1.5 > loop.readout_response


def exposure(direct: Sequence[float], carried: Sequence[Carry], index: int) -> float:
    """Return the largest, over loops from `index` on, of direct visibility there times the carries on the way."""
    reach, most = 1.0, 0.0
    for later in range(index, len(direct)):
        most = max(most, direct[later] * reach)
        reach *= abs(carried[later].mean)
    return most


def verdict_on(carry: Carry, sees: float) -> Verdict:
    """Return the verdict on a scale that is carried on so far, of which the loss sees this much."""
    if abs(carry.mean) < REMOVED:
        return "removed"
    if sees >= SEEN:
        return "visible"
    return "damped" if carry.slope < DAMPED else "blind"


def hangs_on_larger(loops: Sequence[LoopVerdict]) -> bool:
    """Return whether a verdict may hang on what terms see of larger states: no term surely sees those there are."""
    return len(loops) == 1 or any(loop.status != "visible" or loop.exposure < SEEN for loop in loops)


def model_verdict(loops: Sequence[LoopVerdict]) -> Verdict:
    """Return the worst of the loops' verdicts: the model's."""
    return worst_verdict([loop.status for loop in loops])


def worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of some verdicts."""
    return min(verdicts, key=WORST_FIRST.index)


def why(
    loops: Sequence[LoopVerdict],
    seen: Sequence[LoopVisibility],
    terms: Sequence[str],
    readout_name: str | None = None,
) -> str:
    """Explain a verdict in one plain sentence.

    Args:
        terms: the loss's terms, as `AuditReport.terms` has them.
        readout_name: what the model calls its readout.
    """
    verdict = model_verdict(loops)
    concerned = [loop for loop in loops if loop.status == verdict]
    share = shares_text([abs(loop.carry) for loop in concerned])
    names = named_loops([loop.loop for loop in concerned])
    carry = "carries" if len(concerned) == 1 else "carry"
    most = max(concerned, key=lambda loop: loop.exposure)
    unseen = _unseen(seen, terms, readout_name, concerned[0].loop)
    match verdict:
        case "blind":
            return (
                f"{_capital(names)} {carry} {share} of a change of scale to the next loop and no loss term sees it: "
                f"{unseen}."
            )
        case "damped":
            return (
                f"No loss term sees the scale of {names} ({unseen}), but every "
                f"loop shrinks a large state: {share} of a change of scale arrives at the next."
            )
        case "visible":
            if most.exposure < SEEN:
                return (
                    f"The scale of {names} is held: the loss does not push it now, but meets it once it grows "
                    f"({most.exposure_grown:.2g} nats per e-fold at {GROWN:g} times the size)."
                )
            last = concerned[-1]
            rest = ""
            if (
                last.loop == len(loops)
                and max(last.exposure, last.exposure_grown) < SEEN
                and len(concerned) > 1
            ):
                # The last loop carries its scale to none: it has the verdict of the one before.
                names = named_loops([loop.loop for loop in concerned[:-1]])
                rest = f" Loop {last.loop} hands its own on to none."
            return (
                f"The scale of {names} is seen by {_seen_by(seen)}, there or at a loop it is carried to: up to "
                f"{most.exposure:.2g} nats for a scale e times as large.{rest}"
            )
        case "removed" if len(loops) == 1:
            return "There is one loop and no recurrence: nothing carries a scale on, whatever the loss sees of it."
        case "removed":
            return (
                f"What is done between loops leaves {share} of a change of scale at {names}: it is removed."
            )


def _unseen(
    seen: Sequence[LoopVisibility], terms: Sequence[str], readout_name: str | None, first: int
) -> str:
    """Why nothing sees the scale of loop `first` and later ones: what each way of seeing lacks."""
    named = f"readout {readout_name}" if readout_name else "the readout"
    reads = [loop for loop in seen if any(name.endswith("/readout") for name in loop.direct)]
    parts = []
    if reads and all(hides_scale(loop) for loop in reads):
        where = (
            ""
            if len(reads) == len(seen)
            else f" at {named_loops([loop.loop for loop in reads])}, the only one read,"
        )
        if len(reads) > 1 and where:
            where = f" at {named_loops([loop.loop for loop in reads])}, those that are read,"
        if any(shows_little(loop) for loop in reads):
            parts.append(f"{named}{where} shows too little of it to count, and less as it grows")
        else:
            parts.append(f"{named}{where} is scale-invariant")
    elif reads:
        parts.append(f"{named} shows next to nothing of it")
    gate = [
        entry.absolute
        for loop in seen
        if loop.loop >= first
        for name, entry in loop.direct.items()
        if name.endswith("/gate")
    ]
    if any(gate):
        parts.append(f"the exit gate sees at most {max(gate):.1e} nats per e-fold")
    penalties = [term for term in terms if not term.startswith("cross_entropy") and term != "entropy"]
    parts.append(
        f"{' and '.join(penalties)} do not reach it" if penalties else "there is no penalty on scale"
    )
    return " and ".join(parts) if len(parts) < 3 else ", ".join(parts[:-1]) + f", and {parts[-1]}"


def _seen_by(seen: Sequence[LoopVisibility]) -> str:
    """The terms that see it, strongest first."""
    strength: dict[str, float] = {}
    for loop in seen:
        for name, entry in loop.direct.items():
            term, path = name.split("/")
            key = term.split("@")[0].replace("_", " ") + (f" through the {path}" if path != "state" else "")
            strength[key] = max(strength.get(key, 0.0), entry.absolute)
    ordered = sorted(strength, key=lambda key: -strength[key])
    # Each may be below what counts, and their sum, or what carries make of them, above it.
    named = [key for key in ordered if strength[key] >= SEEN] or ordered[:1]
    return " and ".join(f"the {key}" for key in named)


def shares_text(shares: Sequence[float]) -> str:
    """Return shares as a sentence names them: `65%`, or `65% to 70%`."""
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def named_loops(loops: Sequence[int]) -> str:
    """Return loops as a sentence names them: `loop 2`, `loops 1-3`, `loops 1, 3`."""
    if len(loops) == 1:
        return f"loop {loops[0]}"
    if list(loops) == list(range(loops[0], loops[-1] + 1)):
        return f"loops {loops[0]}-{loops[-1]}"
    return "loops " + ", ".join(map(str, loops))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
