"""Interventions: change the state's scale and see what it costs in cross-entropy. No training needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import AbstractLoopedLM, LoopState, l2_norm, scale, unroll

FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Clamped:
    """Per loop, with every state changed before its readout and before it is carried on."""

    cross_entropy: tuple[float, ...]  # nats per token
    l2_norm: tuple[float, ...]
    rms: tuple[float, ...]


Change = Callable[[Float[Tensor, "batch seq dim"], int], Float[Tensor, "batch seq dim"]]


@torch.no_grad()
def final_scale_sweep(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    factors: Sequence[float] = FACTORS,
) -> dict[float, float]:
    """Cross-entropy of the last exit when H_K is multiplied before the readout, by factor."""
    last = None
    for state in unroll(model, input_ids):
        last = state
    assert last is not None
    return {factor: cross_entropy(replace(last, hidden=last.hidden * factor), labels) for factor in factors}


@torch.no_grad()
def radial_clamp(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"]
) -> dict[str, Clamped]:
    """What growth of scale is worth: left alone, frozen at loop 1's, or its radial updates removed.

    `freeze_loop1` rescales every later state, token by token, to that token's scale at loop 1.
    `remove_radial` takes from every update H_{k+1} - H_k its component along H_k.
    """
    first: list[Tensor] = []
    before: list[Tensor] = []

    def freeze(hidden: Tensor, loop: int) -> Tensor:
        if loop == 1:
            first.append(scale(hidden)[..., None])
            return hidden
        return hidden * (first[0] / scale(hidden)[..., None])

    def remove(hidden: Tensor, loop: int) -> Tensor:
        if loop > 1:
            unit = before[-1] / l2_norm(before[-1])[..., None]
            hidden = hidden - ((hidden - before[-1]) * unit).sum(dim=-1, keepdim=True) * unit
        before[:] = [hidden]
        return hidden

    return {
        "none": _run(model, input_ids, labels, lambda hidden, loop: hidden),
        "freeze_loop1": _run(model, input_ids, labels, freeze),
        "remove_radial": _run(model, input_ids, labels, remove),
    }


@torch.no_grad()
def rescale_at(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    loop: int,
    factor: float,
) -> Clamped:
    """Multiply H_k at one loop and follow the effect on that exit and every later one."""
    return _run(model, input_ids, labels, lambda hidden, here: hidden * factor if here == loop else hidden)


@torch.no_grad()
def exit_losses(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    loops: int | None = None,
) -> list[float]:
    """Cross-entropy of every exit, nats per token."""
    return [cross_entropy(state, labels) for state in unroll(model, input_ids, loops)]


def cross_entropy(state: LoopState, labels: Int[Tensor, "batch seq"]) -> float:
    """Mean over counted tokens, nats."""
    losses = chunked_cross_entropy(state.model.head, state.features(), labels)
    return float(losses.double().sum() / (labels != IGNORE_INDEX).sum())


def _run(model: AbstractLoopedLM, input_ids: Tensor, labels: Tensor, change: Change) -> Clamped:
    rows: list[tuple[float, float, float]] = []
    states = unroll(model, input_ids)
    state = next(states, None)
    while state is not None:
        hidden = change(state.hidden, state.loop)
        changed = replace(state, hidden=hidden)
        rows.append(
            (cross_entropy(changed, labels), float(l2_norm(hidden).mean()), float(scale(hidden).mean()))
        )
        try:
            state = states.send(hidden)
        except StopIteration:
            state = None
    entropies, norms, sizes = zip(*rows, strict=True)
    return Clamped(entropies, norms, sizes)
