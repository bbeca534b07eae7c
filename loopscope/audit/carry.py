"""Carry: how much of a relative change of scale survives to the next loop.

d log s_{k+1} / d log s_k by a two-sided difference: H_k scaled by (1 ± eps) goes through one carry and core.
1: carried whole (a pre-norm recurrence at large scale). 0: removed (a norm between loops).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.recurrence import AbstractLoopedLM, l2_norm, scale, unroll

STEP = 1e-2
"""Relative change of scale: in fp32 the difference of logarithms then keeps about five digits."""


@dataclass(frozen=True)
class Carry:
    """From loop k to k + 1, over tokens."""

    loop: int
    mean: float
    spread: float  # standard deviation over tokens
    gain: float  # mean of ‖carry(H_k)‖ / ‖H_k‖: what the step between loops alone does to the size
    gain_of_double: float  # the same for 2·H_k, over the gain: 1 for a linear step, 1/2 for a norm


@torch.no_grad()
def carries(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], loops: int) -> list[Carry]:
    """Carry of every loop 1..loops, each into the loop after it (also the last one, one loop deeper)."""
    found = []
    for state in unroll(model, input_ids, loops + 1):
        if state.loop > loops:
            break
        hidden = state.hidden
        logs = []
        for factor in (1 + STEP, 1 - STEP):
            carried = model.carry(hidden * factor, state.loop, state.context)
            logs.append(scale(model.core(carried, state.loop + 1, state.context)).log())
        width = torch.log(torch.tensor((1 + STEP) / (1 - STEP), dtype=torch.float64))
        slope = (logs[0] - logs[1]).double() / width.to(hidden.device)
        gain = l2_norm(model.carry(hidden, state.loop, state.context)) / l2_norm(hidden)
        double = l2_norm(model.carry(2 * hidden, state.loop, state.context)) / l2_norm(2 * hidden)
        found.append(
            Carry(
                loop=state.loop,
                mean=float(slope.mean()),
                spread=float(slope.std(correction=0)),
                gain=float(gain.mean()),
                gain_of_double=float((double / gain).mean()),
            )
        )
    return found
