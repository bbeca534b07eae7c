"""How firmly a scale is held: by what, and how hard penalties pull. Visible is not held.

S is the root mean square of H over loops, tokens and channels, x = log S. Penalties are functions of the loops' mean
squares alone, so their pull P = dR/dx (nats for a scale e times as large) is exact, and known at any size: 2 w S² for a
norm penalty, 2 w S (S - t) for an anchor. Where training stands still, P equals what cross-entropy gains by a larger
scale, W = -dCE/dx, along the weights that move it. A larger state turns less for the same change of weights, by 1 / S
(the expansion of a pre-norm recurrence): W = c / S, and a norm penalty rests at S = (c / 2w)^(1/3).

From one run to another that differs by the weight alone this holds within a factor of 2 at the end of 800 steps, over
weights a hundred times apart (docs/results): ten times the weight, 1.4 to 2.6 times smaller, from 1e-4 on. From 1e-5
to 1e-4 hardly any.
Where a scale comes to rest is foretold from a run's own training (`monitor.scale_trend`), not from here:
- W measured along the steepest direction of weights is that of a narrow valley of the loss. It falls by 2 to 7 nats per
  e-fold there, which puts W = P within 4 % of any size that training happens to be at.
- Along the valley a blind model's loss is flat (all that writes into the state times c, the readout's gain over c), and
  the size goes on moving for thousands of steps: c differs 25 times between starts of the same model.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import wide
from loopscope.objectives.objective import Objective
from loopscope.objectives.penalties import AbstractPenalty
from loopscope.recurrence import LoopState
from loopscope.results import SEEN, LoopVisibility, RestingScale, RestingStatus, Verdict

BALANCED = 1e-6
"""Nats for a scale e times as large that count as no pull: an anchor at its target."""


@torch.no_grad()
def measure_resting_scale(
    states: Sequence[LoopState], objective: Objective, verdict: Verdict, seen: Sequence[LoopVisibility]
) -> RestingScale:
    """Return by what a model's scale is held, and how hard.

    Args:
        states: of one unroll, loops 1..K.
        objective: the loss that the verdict is under.
        seen: what it sees of each loop.
    """
    squares = torch.stack([wide(state.hidden).square().mean() for state in states])
    pull = pull_at(objective.penalties, squares)
    status: RestingStatus
    if verdict == "removed":
        status = "removed"
        why = (
            "What is done between loops removes the scale: it does not add up, and there is nothing to hold."
        )
    elif verdict == "damped":
        status = "held by the loops"
        why = "Each loop shrinks a large state, and that decides its size; no loss term takes part."
    elif verdict == "blind":
        status = "held by nothing"
        why = "No loss term pulls it back: there is no size that training would return it to."
    elif objective.penalties and not sees_scale(seen):
        status = "held by penalties"
        way = (
            f"{'pull it down' if pull > 0 else 'push it up'} with {abs(pull):.2g} nats for a scale e times as large"
            if abs(pull) > BALANCED
            else "neither pull nor push where it is"
        )
        why = (
            f"They {way}. Where it rests depends on the start "
            "and on how long is trained. Between runs alike but for a norm penalty's weight, of 1e-4 or more, ten "
            "times the weight left it 1.4 to 2.6 times smaller at their ends."
        )
    else:
        status = "held by cross-entropy"
        why = "The exits' loss itself depends on it, and training settles it with the logits."
        if objective.penalties:
            why += f" Penalties pull with {pull:.2g} nats for a scale e times as large."
    rms = float(squares.mean().sqrt())
    return RestingScale(status, why, rms, rms * math.sqrt(states[-1].hidden.shape[-1]), pull)


def sees_scale(seen: Sequence[LoopVisibility]) -> bool:
    """Return whether cross-entropy sees the scale of some loop directly, through a readout or a gate."""
    return any(
        math.fsum(each.absolute for name, each in loop.direct.items() if not name.endswith("/state")) >= SEEN
        for loop in seen
    )


def pull_at(
    penalties: Sequence[AbstractPenalty], squares: Float[Tensor, " loops"], factor: float = 1.0
) -> float:
    """Return what penalties pay for a scale e times as large, at a multiple of the present size.

    Args:
        squares: mean of H² over tokens and channels, per loop.
    """
    if not penalties:
        return 0.0
    logarithm = torch.zeros((), dtype=torch.float64, device=squares.device, requires_grad=True)
    with torch.enable_grad():
        grown = squares.double() * factor**2 * (2 * logarithm).exp()
        paid = torch.stack([penalty(grown) for penalty in penalties]).sum()
        (slope,) = torch.autograd.grad(paid, logarithm)
    return float(slope)
