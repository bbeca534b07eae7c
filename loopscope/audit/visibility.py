"""Visibility: how much of the loss's gradient at H_k is radial, per loop and per loss term.

Direct: through the terms that read H_k itself (its readout, its gate, its penalty), the rest of the unroll
cut off. Total: through the rest of the unroll too. Exact, by autograd. The verdict rests on exposure (direct
visibility carried along), because scaling H_k also turns later directions a little, so that the total is never
exactly zero, even in a blind model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.objectives.objective import Objective
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll


@dataclass(frozen=True)
class Radial:
    """The radial part of one gradient at H_k. Units: nats for a relative change of scale by 1."""

    d_log_scale: float  # d L / d log s_k: sum over tokens of <dL/dH, H>
    absolute: float  # sum over tokens of |<dL/dH, H>|: what the signed sum may cancel
    share: float  # mean over tokens of the absolute cosine between dL/dH and H


@dataclass(frozen=True)
class LoopVisibility:
    """What the loss sees of one loop's scale, by path (`cross_entropy/readout`, `entropy/gate`, …)."""

    loop: int
    direct: Mapping[str, Radial]
    total: Radial  # of the whole loss, through the rest of the unroll


@dataclass(frozen=True)
class _Probe(LoopState):
    """A state whose readout, gate and penalties read leaves of their own, equal to H_k."""

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
    """Direct visibility per loop, term and path, and the total per loop, at the trained depth."""
    states = list(unroll(model, input_ids))
    hiddens = [state.hidden for state in states]
    loss = objective(states, labels)
    totals = torch.autograd.grad(loss.total, hiddens, allow_unused=True)
    direct = _direct(states, objective, labels)
    return [
        LoopVisibility(state.loop, direct[state.loop - 1], radial(total, state.hidden))
        for state, total in zip(states, totals, strict=True)
    ]


def readout_visibility(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"]
) -> list[Radial]:
    """Every loop's own cross-entropy by itself, whatever the objective: what each readout could see."""
    found = []
    counted = (labels != IGNORE_INDEX).sum()
    with torch.no_grad():
        states = list(unroll(model, input_ids))
    for state in states:
        hidden = state.hidden.detach().requires_grad_()
        probe = _Probe(state.loop, hidden, state.model, state.context, hidden, hidden)
        with torch.enable_grad():
            loss = chunked_cross_entropy(model.head, probe.features(), labels).sum() / counted
            (gradient,) = torch.autograd.grad(loss, hidden)
        found.append(radial(gradient, hidden))
    return found


def _direct(states: Sequence[LoopState], objective: Objective, labels: Tensor) -> list[dict[str, Radial]]:
    paths = ("readout", "gate", "penalty")
    leaves = [{path: state.hidden.detach().requires_grad_() for path in paths} for state in states]
    probes = [
        _Probe(s.loop, leaf["penalty"], s.model, s.context, leaf["readout"], leaf["gate"])
        for s, leaf in zip(states, leaves, strict=True)
    ]
    terms = objective(probes, labels).terms
    found: list[dict[str, Radial]] = [{} for _ in states]
    inputs = [(index, path, leaf[path]) for index, leaf in enumerate(leaves) for path in paths]
    for name, term in terms.items():
        gradients = torch.autograd.grad(
            term, [tensor for _, _, tensor in inputs], retain_graph=True, allow_unused=True
        )
        for (index, path, tensor), gradient in zip(inputs, gradients, strict=True):
            if gradient is not None:
                found[index][f"{name}/{path}"] = radial(gradient, tensor)
    return found


def radial(gradient: Float[Tensor, "batch seq dim"] | None, hidden: Float[Tensor, "batch seq dim"]) -> Radial:
    """The radial part of a gradient; nil for a state that the loss does not reach."""
    if gradient is None:
        return Radial(0.0, 0.0, 0.0)
    wide, state = gradient.detach().double(), hidden.detach().double()
    inner = (wide * state).sum(dim=-1)
    lengths = wide.norm(dim=-1) * state.norm(dim=-1)
    cosines = torch.where(lengths > 0, inner.abs() / lengths.clamp(min=1e-300), 0.0)
    return Radial(float(inner.sum()), float(inner.abs().sum()), float(cosines.mean()))
