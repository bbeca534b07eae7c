"""Visibility: how much of the loss's gradient at H_k is radial, per loop and per loss term.

Direct: through the terms that read H_k itself (its readout, its gate, its penalty), the rest of the unroll
cut off. Total: through the rest of the unroll too. Exact, by autograd. The verdict rests on exposure (direct
visibility carried along), because scaling H_k also turns later directions a little, so that the total is never
exactly zero, even in a blind model.

Memory: one training step's graph at the trained depth; the logits never more than a chunk.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import l2_norm, wide
from loopscope.objectives.objective import Objective
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll
from loopscope.results import LoopVisibility, Radial

GROWN = 30.0
"""How much larger a runaway state is taken to be. A satisfied anchor has no gradient where it holds the scale,
and a norm's eps shows at small scale only: what a state thirty times as large would meet tells both apart (published
runaways reach a hundred times)."""
PATHS = ("readout", "gate", "state")
"""How a term reads H_k: decoded, through the exit gate, or as it is (penalties)."""
LIFT = 2.0**40
"""What terms are multiplied by on their way back. A check at laptop size from the published start: 4 times faster."""
STEP = 1e-2
"""Relative change of scale in the two-sided difference of a readout's response."""


@dataclass(frozen=True)
class _Probe(LoopState):
    """A state whose readout, gate and penalties read leaves of their own, all equal to H_k."""

    read: Tensor
    gated: Tensor

    def features(self) -> Float[Tensor, "batch seq dim"]:
        return self.model.readout(self.read, self.loop, self.context)

    def gate_logit(self) -> Float[Tensor, "batch seq"] | None:
        return self.model.exit_gate(self.gated, self.loop, self.context)


def visibility(
    model: AbstractLoopedLM,
    objective: Objective,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
) -> list[LoopVisibility]:
    """Direct visibility per loop, term and path, and the total per loop and term, at the trained depth."""
    with torch.enable_grad():
        states = _from_first(model, input_ids)
        totals = _totals(states, objective, labels)
    states = [replace(state, hidden=state.hidden.detach()) for state in states]
    directs = direct_visibility(states, objective, labels)
    grown = grown_visibility(states, objective, labels)
    return [
        loop_visibility(state, direct, total, more)
        for state, direct, total, more in zip(states, directs, totals, grown, strict=True)
    ]


def loop_visibility(
    state: LoopState, direct: Mapping[str, Radial], total: Mapping[str, Radial], grown: float
) -> LoopVisibility:
    """One loop's record, with its readout's response to scale as it is and grown."""
    larger = replace(state, hidden=state.hidden * GROWN)
    return LoopVisibility(state.loop, direct, total, grown, readout_response(state), readout_response(larger))


def direct_visibility(
    states: Sequence[LoopState], objective: Objective, labels: Int[Tensor, "batch seq"]
) -> list[dict[str, Radial]]:
    """What each loss term sees of each given state itself, by `term/path`."""
    with torch.enable_grad():
        leaves, terms = _probe(states, objective, labels)
        found: list[dict[str, Radial]] = [{} for _ in states]
        inputs = [(index, path, leaf[path]) for index, leaf in enumerate(leaves) for path in PATHS]
        for name, term in terms.items():
            for (index, path, leaf), gradient in zip(
                inputs, _gradients(term, [leaf for _, _, leaf in inputs]), strict=True
            ):
                if gradient is not None:
                    found[index][f"{name}/{path}"] = radial(gradient, leaf)
    return found


def grown_visibility(
    states: Sequence[LoopState], objective: Objective, labels: Int[Tensor, "batch seq"]
) -> list[float]:
    """The same for states `GROWN` times as large: absolute nats per e-fold, over the whole loss, per loop."""
    larger = [replace(state, hidden=state.hidden * GROWN) for state in states]
    with torch.enable_grad():
        leaves, terms = _probe(larger, objective, labels)
        inputs = [leaf[path] for leaf in leaves for path in PATHS]
        gradients = _gradients(torch.stack(list(terms.values())).sum(), inputs)
    absolute = [radial(gradient, leaf).absolute for gradient, leaf in zip(gradients, inputs, strict=True)]
    width = len(PATHS)
    return [math.fsum(absolute[place : place + width]) for place in range(0, len(absolute), width)]


def readout_visibility(states: Sequence[LoopState], labels: Int[Tensor, "batch seq"]) -> list[Radial]:
    """Every loop's own cross-entropy by itself, whatever the objective: what each readout could see."""
    found = []
    counted = (labels != IGNORE_INDEX).sum()
    for state in states:
        with torch.enable_grad():
            hidden = state.hidden.detach().requires_grad_()
            features = state.model.readout(hidden, state.loop, state.context)
            loss = chunked_cross_entropy(state.model.head, features, labels).sum() / counted
            (gradient,) = _gradients(loss, [hidden])
        found.append(radial(gradient, hidden))
    return found


@torch.no_grad()
def readout_response(state: LoopState) -> float:
    """Relative change of the readout's features for one of scale, mean over tokens: 0 hidden, 1 raw."""
    up, down = (replace(state, hidden=state.hidden * factor).features() for factor in (1 + STEP, 1 - STEP))
    middle = l2_norm(state.features()).clamp(min=1e-30)
    return float((l2_norm(wide(up) - wide(down)) / (2 * STEP * middle)).mean())


def radial(gradient: Float[Tensor, "batch seq dim"] | None, hidden: Float[Tensor, "batch seq dim"]) -> Radial:
    """The radial part of a gradient; nil for a state that the loss does not reach."""
    if gradient is None:
        return Radial(0.0, 0.0, 0.0)
    slope, state = gradient.detach().double(), hidden.detach().double()
    inner = (slope * state).sum(dim=-1)
    lengths = slope.norm(dim=-1) * state.norm(dim=-1)
    cosines = torch.where(lengths > 0, inner.abs() / lengths.clamp(min=1e-300), 0.0)
    return Radial(float(inner.sum()), float(inner.abs().sum()), float(cosines.mean()))


def _from_first(model: AbstractLoopedLM, input_ids: Tensor) -> list[LoopState]:
    """An unroll whose graph begins at H_1, so that frozen weights do not cut it, and nothing before is kept."""
    unrolling = unroll(model, input_ids)
    first = next(unrolling)
    states = [replace(first, hidden=first.hidden.detach().requires_grad_())]
    while not states[-1].is_last:
        states.append(unrolling.send(states[0].hidden) if len(states) == 1 else next(unrolling))
    return states


def _probe(
    states: Sequence[LoopState], objective: Objective, labels: Tensor
) -> tuple[list[dict[str, Tensor]], Mapping[str, Tensor]]:
    """Leaves per state and path, and the loss terms that read them."""
    leaves = [{path: state.hidden.detach().clone().requires_grad_() for path in PATHS} for state in states]
    probes = [
        _Probe(s.loop, leaf["state"], s.model, s.context, leaf["readout"], leaf["gate"])
        for s, leaf in zip(states, leaves, strict=True)
    ]
    return leaves, objective.split(probes, labels)


def _totals(states: Sequence[LoopState], objective: Objective, labels: Tensor) -> list[dict[str, Radial]]:
    hiddens = [state.hidden for state in states]
    found: list[dict[str, Radial]] = [{} for _ in states]
    summed: list[Tensor | None] = [None] * len(states)
    for name, term in objective.split(states, labels).items():
        for index, gradient in enumerate(_gradients(term, hiddens)):
            if gradient is not None:
                found[index][name] = radial(gradient, hiddens[index])
                before = summed[index]
                summed[index] = gradient if before is None else before + gradient
    for index, gradient in enumerate(summed):
        found[index]["loss"] = radial(gradient, hiddens[index])
    return found


def _gradients(term: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Gradients of one term, its graph kept, in float64; None for what it does not reach."""
    if not term.requires_grad:
        return [None] * len(inputs)
    # A power of two, exact both ways: it lifts what would be denormal numbers, which CPUs multiply many times slower.
    gradients = torch.autograd.grad(
        term, list(inputs), torch.full_like(term, LIFT), retain_graph=True, allow_unused=True
    )
    return [None if gradient is None else gradient.double() / LIFT for gradient in gradients]
