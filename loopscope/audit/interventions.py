"""Interventions: change the state's scale and see what it costs in cross-entropy. No training needed.

They work on the states of one unroll that was made without gradients, and go on from them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import l2_norm, scale
from loopscope.objectives.extras import TokenLoss
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import LoopState, unroll_from
from loopscope.results import Clamped

FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)

StateChange = Callable[[Float[Tensor, "batch seq dim"], int], Float[Tensor, "batch seq dim"]]
Row = tuple[float, float, float]


@torch.no_grad()
def final_scale_sweep(
    last: LoopState,
    labels: Int[Tensor, "batch seq"],
    factors: Sequence[float] = FACTORS,
    token_loss: TokenLoss = chunked_cross_entropy,
) -> dict[float, float]:
    """Return the last exit's cross-entropy when H_K is multiplied before the readout: nats by factor.

    Args:
        last: the state of the last loop.
        labels: the token that follows each input token; -100 is not counted.
        factors: what H_K is multiplied by, one after the other.
        token_loss: cross-entropy per token, here and below.
    """
    changed = {factor: replace(last, hidden=last.hidden * factor) for factor in factors}
    return {factor: cross_entropy(state, labels, token_loss) for factor, state in changed.items()}


@torch.no_grad()
def radial_clamp(
    states: Sequence[LoopState],
    labels: Int[Tensor, "batch seq"],
    token_loss: TokenLoss = chunked_cross_entropy,
) -> dict[str, Clamped]:
    """Measure what growth of scale is worth: left alone, frozen at loop 1's, or with its radial updates removed.

    `freeze_loop1` rescales every later state, token by token, to that token's scale at loop 1.
    `remove_radial` takes from every update H_{k+1} - H_k its component along H_k.

    Args:
        states: of one unroll made without gradients, loops 1..K.
        labels: the token that follows each input token; -100 is not counted.

    Returns:
        Cross-entropy (nats), L2 norm and RMS of every exit, by `none`, `freeze_loop1` and `remove_radial`.
    """
    first = scale(states[0].hidden)[..., None]
    before = [states[0].hidden]

    def freeze(hidden: Tensor, loop: int) -> Tensor:
        return hidden * (first / scale(hidden)[..., None].clamp(min=1e-30))

    def remove(hidden: Tensor, loop: int) -> Tensor:
        unit = before[-1] / l2_norm(before[-1])[..., None].clamp(min=1e-30)
        hidden = hidden - ((hidden - before[-1]) * unit).sum(dim=-1, keepdim=True) * unit
        before[:] = [hidden]
        return hidden

    def after(change: StateChange) -> list[Row]:
        if len(states) == 1 or not states[0].model.stateless:
            return _changed_after(states[0], states[0].hidden, labels, change, token_loss)
        second = states[1]  # loop 1 is left alone, so loop 2's own output is known
        changed = replace(second, hidden=change(second.hidden, second.loop))
        return [
            _measured(changed, labels, token_loss),
            *_changed_after(changed, changed.hidden, labels, change, token_loss),
        ]

    own = [_measured(state, labels, token_loss) for state in states]
    return {
        "none": _clamped(own),
        "freeze_loop1": _clamped([own[0], *after(freeze)]),
        "remove_radial": _clamped([own[0], *after(remove)]),
    }


@torch.no_grad()
def rescale_each_loop(
    states: Sequence[LoopState],
    labels: Int[Tensor, "batch seq"],
    own: Clamped,
    factor: float,
    token_loss: TokenLoss = chunked_cross_entropy,
) -> dict[int, Clamped]:
    """Multiply H_k at one loop and follow the effect on that exit and every later one, for every loop k.

    Returns:
        By k, the measurements of all exits.

    Args:
        own: the same states' measurements, left alone: what the exits before loop k keep.
    """
    untouched = list(zip(own.cross_entropy, own.l2_norm, own.rms, strict=True))
    measurements = {}
    for index, state in enumerate(states):
        hidden = state.hidden * factor
        state.model.rejoin(state)
        here = _measured(replace(state, hidden=hidden), labels, token_loss)
        later = _changed_after(state, hidden, labels, lambda later, loop: later, token_loss)
        measurements[state.loop] = _clamped([*untouched[:index], here, *later])
    return measurements


def exit_losses(
    states: Iterable[LoopState],
    labels: Int[Tensor, "batch seq"],
    token_loss: TokenLoss = chunked_cross_entropy,
) -> list[float]:
    """Return the cross-entropy of every exit, in nats per token."""
    with torch.no_grad():
        return [cross_entropy(state, labels, token_loss) for state in states]


def cross_entropy(
    state: LoopState, labels: Int[Tensor, "batch seq"], token_loss: TokenLoss = chunked_cross_entropy
) -> float:
    """Return one exit's cross-entropy: the mean over counted tokens, in nats."""
    return mean_loss(token_loss(state.model.head, state.features(), labels), labels)


def mean_loss(losses: Float[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"]) -> float:
    """Return the mean of tokens' losses over those that count, summed in float64."""
    return float(losses.double().sum() / (labels != IGNORE_INDEX).sum())


def _changed_after(
    state: LoopState, hidden: Tensor, labels: Tensor, change: StateChange, token_loss: TokenLoss
) -> list[Row]:
    """Go on after `state`, changing every later state before its readout and before it is carried on."""
    rows = []
    states = unroll_from(state, hidden)
    later = next(states, None)
    while later is not None:
        changed = change(later.hidden, later.loop)
        rows.append(_measured(replace(later, hidden=changed), labels, token_loss))
        try:
            later = states.send(changed)
        except StopIteration:
            later = None
    return rows


def _measured(state: LoopState, labels: Tensor, token_loss: TokenLoss) -> Row:
    return (
        cross_entropy(state, labels, token_loss),
        float(l2_norm(state.hidden).mean()),
        float(scale(state.hidden).mean()),
    )


def _clamped(rows: Sequence[Row]) -> Clamped:
    entropies, norms, sizes = zip(*rows, strict=True)
    return Clamped(tuple(entropies), tuple(norms), tuple(sizes))
