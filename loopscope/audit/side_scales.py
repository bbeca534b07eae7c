"""Scales beside H_k: of what else a model hands from loop to loop (a momentum, a low stack, memories).

The same questions as of H_k. Carry: how much of a relative change of its scale is there one loop later. Visibility: no
readout reads it, so what the loss sees of it goes through the next loop's H; its own way on is cut off there. The state
that reads it normed still turns a little less where it is larger, by order 1/s: seen at `GROWN` times the size,
that part has faded by as much, and is not counted. Exposure and verdict are those of H_k.

Memory: one graph of the loops after k, for each loop k, one at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.audit.carry import carry_of
from loopscope.audit.verdict import exposure, named_loops, shares_text, verdict_on, worst_verdict
from loopscope.audit.visibility import GROWN, radial
from loopscope.numerics import scale, wide
from loopscope.objectives.objective import Objective
from loopscope.recurrence import LoopState, next_beside
from loopscope.results import SEEN, Carry, Radial, SideScale, Verdict

FADES = 2.0
"""Visibility at `GROWN` times the size, times `GROWN`, over that at the size it has: up to here it fades as 1/s."""

Side = Mapping[str, Float[Tensor, "..."]]


def measure_side_scales(
    states: Sequence[LoopState], objective: Objective, labels: Int[Tensor, "batch seq"]
) -> list[SideScale]:
    """Return one record per thing that goes beside H_k and loop at which it has a scale; none where nothing does.

    Args:
        states: of one unroll made without gradients, loops 1..K.
        labels: the token that follows each input token; -100 is not counted.
    """
    sides = [state.model.beside(state.hidden, state.loop, state.context) for state in states]
    return [row for name in sides[0] for row in _of(name, states, sides, objective, labels)]


def _of(
    name: str, states: Sequence[LoopState], sides: Sequence[Side], objective: Objective, labels: Tensor
) -> Iterator[SideScale]:
    with_scale = [
        (state, side)
        for state, side in zip(states, sides, strict=True)
        if bool((_vectors(side[name]) != 0).any())
    ]
    carries = [_carry(state, side, name) for state, side in with_scale]
    now = [_visibility(states, state, side, name, 1.0, objective, labels) for state, side in with_scale]
    grown = [_visibility(states, state, side, name, GROWN, objective, labels) for state, side in with_scale]
    kept = [_kept(one, other) for one, other in zip(now, grown, strict=True)]
    kept_grown = [other if one else 0.0 for one, other in zip(kept, (g.absolute for g in grown), strict=True)]
    status: Verdict = "removed"
    for index, ((state, side), carry) in enumerate(zip(with_scale, carries, strict=True)):
        sees = max(exposure(kept, carries, index), exposure(kept_grown, carries, index))
        if (
            not state.is_last or sees >= SEEN
        ):  # the last is carried nowhere: it takes the verdict of the one before
            status = verdict_on(carry, sees)
        yield SideScale(
            name=name,
            loop=state.loop,
            status=status,
            rms=float(scale(_vectors(side[name])).mean()),
            carry=carry.mean,
            slope=carry.slope,
            visibility=now[index].absolute,
            share=now[index].share,
            visibility_grown=grown[index].absolute,
            exposure=exposure(kept, carries, index),
        )


def _kept(now: Radial, grown: Radial) -> float:
    """What counts of a visibility: nothing of one that fades as the state grows."""
    return now.absolute if grown.absolute * GROWN > FADES * now.absolute else 0.0


@torch.no_grad()
def _carry(state: LoopState, side: Side, name: str) -> Carry:
    def following(factor: float) -> Tensor:
        _, later = next_beside(state, {**side, name: side[name] * factor})
        return wide(_vectors(later[name]))

    carry = carry_of(state.loop, _vectors(side[name]), following)
    state.model.rejoin(state)
    return carry


def _visibility(
    states: Sequence[LoopState],
    state: LoopState,
    side: Side,
    name: str,
    factor: float,
    objective: Objective,
    labels: Tensor,
) -> Radial:
    """The radial part of the loss's gradient at what is beside H_k, through the next loop's H and on from there."""
    if state.is_last:
        return Radial(0.0, 0.0, 0.0)
    with torch.enable_grad():
        leaf = (side[name].detach() * factor).requires_grad_()
        before = [replace(one, hidden=one.hidden.detach()) for one in states[: state.loop]]
        later = _later(state, {**side, name: leaf})
        loss = torch.stack(list(objective.split([*before, *later], labels).values())).sum()
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    state.model.rejoin(state)
    return radial(None if gradient is None else _vectors(gradient), _vectors(leaf))


def _later(state: LoopState, side: Side) -> list[LoopState]:
    """The states after this one, were `side` beside it; what is beside the next one is no way of the gradient's."""
    later, beside = next_beside(state, side)
    states = [later]
    if not later.is_last:
        states.append(next_beside(later, {name: value.detach() for name, value in beside.items()})[0])
    while not states[-1].is_last:
        last = states[-1]
        carried = last.model.carry(last.hidden, last.loop, last.context)
        hidden = last.model.core(carried, last.loop + 1, last.context)
        states.append(replace(last, loop=last.loop + 1, hidden=hidden))
    return states


def _vectors(side: Float[Tensor, "..."]) -> Float[Tensor, "1 vectors dim"]:
    return side.flatten(0, -2)[None]


def side_sentences(rows: Sequence[SideScale]) -> dict[str, str]:
    """Return what is to be said of each thing that goes beside H_k, by name: a sentence or two."""
    sentences = {}
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        worst = worst_verdict(row.status for row in own)
        at = [row for row in own if row.status == worst]
        share = shares_text([abs(row.carry) for row in at])
        size = (
            f"its RMS is {own[0].rms:.3g} at loop {own[0].loop} and {own[-1].rms:.3g} at loop {own[-1].loop}"
        )
        where, most = named_loops([row.loop for row in at]), max(row.exposure for row in own)
        said = {
            "blind": f"{share} of a change of its scale is carried on at {where}, and no loss term sees it: what reads "
            "it is turned a little by it at most, and less as it grows. Norm it where it is handed on, or penalise it.",
            "damped": f"no loss term sees its scale, but every loop shrinks a large one ({share} of a change arrives "
            "at the next).",
            "visible": f"a loss term sees its scale through the next state (up to {most:.2g} nats for one e times as "
            "large).",
            "removed": f"{share} of a change of its scale arrives at the next loop: it is removed.",
        }[worst]
        sentences[name] = f"Beside H_k, {name} goes from loop to loop ({size}), {worst}: {said}"
    return sentences
