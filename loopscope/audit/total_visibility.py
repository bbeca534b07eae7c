"""Total visibility: what every loss term sees of each loop's scale, through the rest of the unroll too.

What a term sees of H_k through the rest is what it sees of it directly, and what it sees of H_{k+1}, taken back through
one loop. So one reading of the exits gives direct and total visibility both. Loops are run again for that, the last one
first.

Memory: the graph of one loop (of all of them where a model keeps more than H_k from loop to loop).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.audit.head_readings import LIFT
from loopscope.audit.visibility import (
    direct_slopes,
    grown_visibility,
    lifted_gradients,
    radial,
    visibility_records,
)
from loopscope.objectives.objective import Objective
from loopscope.recurrence import AbstractLoopedLM, LoopState, next_hidden, unroll
from loopscope.results import LoopVisibility, Radial


def measure_visibility(
    model: AbstractLoopedLM,
    objective: Objective,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
) -> list[LoopVisibility]:
    """Measure visibility at the trained depth: direct per loop, term and path, and total per loop and term.

    Args:
        objective: the loss whose terms are looked at.
        input_ids: token ids [batch seq].
        labels: the token that follows each, [batch seq]; -100 is not counted.

    Returns:
        One record per loop; visibility in nats for a scale e times as large.
    """
    with torch.no_grad():
        states = list(unroll(model, input_ids))
    return whole_visibilities(states, objective, labels)


def whole_visibilities(
    states: Sequence[LoopState], objective: Objective, labels: Int[Tensor, "batch seq"]
) -> list[LoopVisibility]:
    """Return what `measure_visibility` returns, of an unroll that was made without gradients."""
    directs, slopes = direct_slopes(states, objective, labels)
    if states[0].model.stateless:
        totals = _taken_back(states, slopes)
    else:
        with torch.enable_grad():
            totals = _totals(_from_first(states[0].model, states[0].context.input_ids), objective, labels)
    return visibility_records(states, directs, totals, grown_visibility(states, objective, labels))


def _taken_back(
    states: Sequence[LoopState], slopes: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, Radial]]:
    """What each term sees of each state through the rest of the unroll too: the last loop first, one at a time.

    Args:
        slopes: every term's gradient at each state, the rest cut off, lifted.
    """
    totals: list[dict[str, Radial]] = []
    through: dict[str, Tensor] = {}
    for state, own in zip(reversed(states), reversed(slopes), strict=True):
        through = _one_loop_back(state, through) if through else {}
        for name, slope in own.items():
            through[name] = through[name] + slope if name in through else slope
        found = {name: radial(slope.double() / LIFT, state.hidden) for name, slope in through.items()}
        whole = torch.stack(list(through.values())).sum(dim=0).double() / LIFT if through else None
        totals.append({**found, "loss": radial(whole, state.hidden)})
    return totals[::-1]


def _one_loop_back(state: LoopState, later: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients at H_k of what has these at H_{k+1}; nothing where no gradient passes."""
    with torch.enable_grad():
        leaf = state.hidden.detach().requires_grad_()
        following = next_hidden(state, leaf)
    if not following.requires_grad:
        return {}
    back: dict[str, Tensor] = {}
    for name, slope in later.items():
        (gradient,) = torch.autograd.grad(following, leaf, slope, retain_graph=True, allow_unused=True)
        if gradient is not None:
            back[name] = gradient
    return back


def _from_first(model: AbstractLoopedLM, input_ids: Tensor) -> list[LoopState]:
    """An unroll whose graph begins at H_1, so that frozen weights do not cut it, and nothing before is kept."""
    unrolling = unroll(model, input_ids)
    first = next(unrolling)
    states = [replace(first, hidden=first.hidden.detach().requires_grad_())]
    while not states[-1].is_last:
        states.append(unrolling.send(states[0].hidden) if len(states) == 1 else next(unrolling))
    return states


def _totals(states: Sequence[LoopState], objective: Objective, labels: Tensor) -> list[dict[str, Radial]]:
    hiddens = [state.hidden for state in states]
    totals: list[dict[str, Radial]] = [{} for _ in states]
    summed: list[Tensor | None] = [None] * len(states)
    for name, term in objective.split(states, labels).items():
        for index, gradient in enumerate(lifted_gradients(term, hiddens)):
            if gradient is not None:
                gradient = gradient.double() / LIFT
                totals[index][name] = radial(gradient, hiddens[index])
                before = summed[index]
                summed[index] = gradient if before is None else before + gradient
    for index, gradient in enumerate(summed):
        totals[index]["loss"] = radial(gradient, hiddens[index])
    return totals
