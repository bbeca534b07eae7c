"""What a readout, a carry and a placement declare, against what they do: a declaration is somebody's word.

The verdict rests on measurements alone. The static audit, and what a run costs, rest on declarations: where one is
wrong, the measured audit says so in a note. Two calls of the readout and of every step of the carry, at two sizes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from loopscope.numerics import l2_norm
from loopscope.objectives.placement_config import wrong_reads
from loopscope.objectives.placements import AbstractPlacement
from loopscope.recurrence import CarryStep, LoopState, carried

PROBE_SIZES = (30.0, 3000.0)
"""How many times as large the state is made: far above a norm's eps, and where what is added of fixed size is small."""
ROUNDED = 1e-5
"""Relative difference of two mean norms that fp32 leaves where a step changes nothing."""
APART = 0.1
"""Difference of exponents that is no rounding."""


@torch.no_grad()
def wrong_declarations(states: Sequence[LoopState], placement: AbstractPlacement) -> tuple[str, ...]:
    """Return a note on each declaration that the measurement contradicts.

    Args:
        states: the model's own unroll, to the trained depth.
        placement: of the objective that the model is judged under.
    """
    return (*_readout(states), *_carry(states[0]), *_placement(placement, len(states)))


def _readout(states: Sequence[LoopState]) -> Iterator[str]:
    for state in {state.loop: state for state in (states[0], states[-1])}.values():
        declared = state.model.declared_exponent(state.loop, state.context.loops)
        if declared is None or isinstance(declared, str):
            continue
        sizes = [
            l2_norm(replace(state, hidden=state.hidden * size).features()).mean() for size in PROBE_SIZES
        ]
        measured = _exponent(sizes[0], sizes[1])
        if abs(measured - declared) > APART:
            yield (
                f"Readout {state.model.readout_name} declares scale_exponent {declared:g} at loop {state.loop}, and "
                f"its features grow as the state's size to the power {measured:.2g}: correct the declaration; the "
                "static audit goes by it."
            )
            return  # once is enough


def _carry(state: LoopState) -> Iterator[str]:
    if state.is_last:
        return
    for step in _steps(state):
        sizes = [l2_norm(step.apply(state.hidden * size, state.loop)).mean() for size in PROBE_SIZES]
        measured = _exponent(sizes[0], sizes[1])
        if measured < APART:
            effect = "removes"
        else:
            kept = PROBE_SIZES[1] * l2_norm(state.hidden).mean()
            effect = "damps" if bool(sizes[1] < (1 - ROUNDED) * kept) else "keeps"
        if effect != step.effect:
            yield (
                f"{step.name} declares that it {step.effect} scale, and measured it {effect} it: correct the "
                "declaration; the static audit goes by it."
            )


def _steps(state: LoopState) -> Iterator[CarryStep]:
    """The carry's steps, each under its name; the whole carry where the model tells no steps."""
    steps = state.model.carry_steps()
    yield from (replace(step, name=f"Carry {step.name}") for step in steps)
    declared = state.model.declared_effect()
    if not steps and declared is not None:
        yield CarryStep("The carry", declared, lambda hidden, loop: carried(state, hidden))


def _placement(placement: AbstractPlacement, loops: int) -> Iterator[str]:
    # One that a config names was held to its declaration before it was built; this one may be made in Python.
    declared = getattr(getattr(placement, "declaration", None), "reads", None)
    if declared in ("last", "all"):
        problem = wrong_reads(placement, lambda loop, depth: declared == "all" or loop == depth, loops)
        if problem:
            yield (
                f"Placement {placement.name} {problem}: correct the declaration; the static audit and costs go by it."
            )


def _exponent(small: torch.Tensor, large: torch.Tensor) -> float:
    if not (float(small) > 0 and float(large) > 0):
        return 0.0
    return math.log(float(large) / float(small)) / math.log(PROBE_SIZES[1] / PROBE_SIZES[0])
