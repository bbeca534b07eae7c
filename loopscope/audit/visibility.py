"""Visibility: how much of the loss's gradient at H_k is radial, per loop and per loss term.

Direct: through the terms that read H_k itself (its readout, its gate, its penalty), the rest of the unroll
cut off. Through the rest of the unroll too it is total (`total_visibility`). Exact, by autograd. The verdict rests on
exposure (direct visibility carried along), because scaling H_k also turns later directions a little, so that the total
is never exactly zero, even in a blind model.

Memory: one chunk of logits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.audit.head_readings import LIFT
from loopscope.numerics import l2_norm, wide
from loopscope.objectives.extras import TokenLoss
from loopscope.objectives.objective import Objective
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import LoopState
from loopscope.results import LoopVisibility, Radial

GROWN = 30.0
"""How much larger a runaway state is taken to be. A satisfied anchor has no gradient where it holds the scale,
and a norm's eps shows at small scale only: what a state thirty times as large would meet tells both apart (published
runaways reach a hundred times)."""
PATHS = ("readout", "gate", "state")
"""How a term reads H_k: decoded, through the exit gate, or as it is (penalties)."""
RESPONSE_STEP = 1e-2
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


def loop_visibilities(
    states: Sequence[LoopState],
    objective: Objective,
    labels: Int[Tensor, "batch seq"],
    totals: Sequence[Mapping[str, Radial]] | None = None,
    grown: bool = True,
) -> list[LoopVisibility]:
    """Return one record per state: all that a verdict asks for, without the gradient through the unroll.

    Args:
        states: of one unroll, loops 1..K; the rest of the unroll is cut off.
        labels: the token that follows each input token; -100 is not counted.
        totals: what each term sees of each state through the rest of the unroll too, where that is known.
        grown: measure what would be seen of larger states too; 0 otherwise.
    """
    directs = direct_visibility(states, objective, labels)
    known = [{}] * len(states) if totals is None else totals
    return visibility_records(
        states, directs, known, grown_visibility(states, objective, labels) if grown else None
    )


def visibility_records(
    states: Sequence[LoopState],
    directs: Sequence[Mapping[str, Radial]],
    totals: Sequence[Mapping[str, Radial]],
    grown: Sequence[float] | None,
) -> list[LoopVisibility]:
    return [
        LoopVisibility(
            state.loop, direct, total, more, readout_response(state), readout_response(_larger(state))
        )
        for state, direct, total, more in zip(
            states, directs, totals, [0.0] * len(states) if grown is None else grown, strict=True
        )
    ]


def _larger(state: LoopState) -> LoopState:
    return replace(state, hidden=state.hidden * GROWN)


def direct_visibility(
    states: Sequence[LoopState], objective: Objective, labels: Int[Tensor, "batch seq"]
) -> list[dict[str, Radial]]:
    """Return what each loss term sees of each given state itself: one mapping per state, by `term/path`.

    Args:
        states: of one unroll, loops 1..K; the rest of the unroll is cut off.
        labels: the token that follows each input token; -100 is not counted.
    """
    return direct_slopes(states, objective, labels)[0]


def direct_slopes(
    states: Sequence[LoopState], objective: Objective, labels: Tensor
) -> tuple[list[dict[str, Radial]], list[dict[str, Tensor]]]:
    """Direct visibility of every state, by term and path; and every term's gradient at it, over paths, lifted."""
    seen: list[dict[str, Radial]] = [{} for _ in states]
    slopes: list[dict[str, Tensor]] = [{} for _ in states]
    with torch.enable_grad():
        leaves, terms = _probe(states, objective, labels)
        inputs = [(index, path, leaf[path]) for index, leaf in enumerate(leaves) for path in PATHS]
        for name, term in terms.items():
            gradients = lifted_gradients(term, [leaf for _, _, leaf in inputs])
            for (index, path, leaf), gradient in zip(inputs, gradients, strict=True):
                if gradient is not None:
                    seen[index][f"{name}/{path}"] = radial(gradient.double() / LIFT, leaf)
                    before = slopes[index].get(name)
                    slopes[index][name] = gradient if before is None else before + gradient
    return seen, slopes


def grown_visibility(
    states: Sequence[LoopState], objective: Objective, labels: Int[Tensor, "batch seq"]
) -> list[float]:
    """Return what the whole loss would see of states `GROWN` times as large: nats per e-fold of scale, per loop."""
    larger = [_larger(state) for state in states]
    with torch.enable_grad():
        leaves, terms = _probe(larger, objective, labels)
        inputs = [leaf[path] for leaf in leaves for path in PATHS]
        gradients = _gradients(torch.stack(list(terms.values())).sum(), inputs)
    absolute = [radial(gradient, leaf).absolute for gradient, leaf in zip(gradients, inputs, strict=True)]
    width = len(PATHS)
    return [math.fsum(absolute[start : start + width]) for start in range(0, len(absolute), width)]


def readout_visibility(
    states: Sequence[LoopState],
    labels: Int[Tensor, "batch seq"],
    token_loss: TokenLoss = chunked_cross_entropy,
) -> list[Radial]:
    """Return what each loop's readout could see: visibility of its own cross-entropy, whatever the objective.

    Args:
        states: of one unroll, each looked at by itself.
        labels: the token that follows each input token; -100 is not counted.
        token_loss: cross-entropy per token.
    """
    visibilities = []
    counted = (labels != IGNORE_INDEX).sum()
    for state in states:
        with torch.enable_grad():
            hidden = state.hidden.detach().requires_grad_()
            features = state.model.readout(hidden, state.loop, state.context)
            loss = token_loss(state.model.head, features, labels).sum() / counted
            (gradient,) = _gradients(loss, [hidden])
        visibilities.append(radial(gradient, hidden))
    return visibilities


@torch.no_grad()
def readout_response(state: LoopState) -> float:
    """Return the relative change of a readout's features for one of scale, mean over tokens: 0 hidden, 1 raw."""
    up, down = (
        replace(state, hidden=state.hidden * factor).features()
        for factor in (1 + RESPONSE_STEP, 1 - RESPONSE_STEP)
    )
    middle = l2_norm(state.features()).clamp(min=1e-30)
    return float((l2_norm(wide(up) - wide(down)) / (2 * RESPONSE_STEP * middle)).mean())


def radial(gradient: Float[Tensor, "batch seq dim"] | None, hidden: Float[Tensor, "batch seq dim"]) -> Radial:
    """Return the radial part of a gradient at H_k; nil for a state that the loss does not reach."""
    if gradient is None:
        return Radial(0.0, 0.0, 0.0)
    slope, state = gradient.detach().double(), hidden.detach().double()
    inner = (slope * state).sum(dim=-1)
    lengths = slope.norm(dim=-1) * state.norm(dim=-1)
    cosines = torch.where(lengths > 0, inner.abs() / lengths.clamp(min=1e-300), 0.0)
    return Radial(float(inner.sum()), float(inner.abs().sum()), float(cosines.mean()))


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


def _gradients(term: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Gradients of one term, its graph kept, in float64; None for what it does not reach."""
    return [
        None if gradient is None else gradient.double() / LIFT for gradient in lifted_gradients(term, inputs)
    ]


def lifted_gradients(term: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Gradients of `LIFT` times a term, its graph kept; None for what it does not reach."""
    if not term.requires_grad:
        return [None] * len(inputs)
    # A power of two, exact both ways: it lifts what would be denormal numbers, which CPUs multiply many times slower.
    return torch.autograd.grad(term * LIFT, list(inputs), retain_graph=True, allow_unused=True)
