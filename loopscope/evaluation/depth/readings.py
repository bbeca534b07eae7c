"""Loops as a user of so many gets them: loop k as the last of an unroll of k loops, from one unroll where that serves.

States of most models do not depend on how many loops their unroll runs, so one unroll to the deepest has them all, and
a readout is told the depth that it is read at. Where states do (`depth_conditioned`), every depth takes an unroll of
its own. A model of others may be neither; `one_unroll_serves` asks it.
"""

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.numerics import wide
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll

AGREEMENT = {torch.float64: 2e-5, torch.float32: 2e-5}
HALF_AGREEMENT = 0.03
"""How far logits of two ways may be apart, for the largest of them, by their type; what is half of one rounds more."""


def states_at_depths(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], depths: Collection[int], apart: bool = False
) -> Iterator[LoopState]:
    """Yield loop k as the last of k loops for every k in `depths`, shallow first.

    Args:
        apart: run an unroll of its own for every depth, whatever the model says of itself.
    """
    if apart or model.depth_conditioned:
        for loops in sorted(depths):
            yield deque(unroll(model, input_ids, loops), maxlen=1)[0]
        return
    for state in unroll(model, input_ids, max(depths)):
        if state.loop in depths:
            yield in_unroll_of(state, state.loop)


def in_unroll_of(state: LoopState, loops: int) -> LoopState:
    """Return a state as a loop of an unroll of so many."""
    return replace(state, context=replace(state.context, loops=loops))


@torch.no_grad()
def one_unroll_serves(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], depths: Collection[int]
) -> bool:
    """Return whether the exits of one unroll are those of runs to each depth by themselves, asked with a few texts."""
    if model.depth_conditioned:
        return False
    # One after the other: a model of others may keep what goes from loop to loop itself.
    together, alone = (
        [state.logits()[:, -1:] for state in states_at_depths(model, input_ids, depths, apart)]
        for apart in (False, True)
    )
    return all(map(_agree, together, alone))


def _agree(one: Tensor, other: Tensor) -> bool:
    """Whether logits are alike but for rounding."""
    allowed = AGREEMENT.get(one.dtype, HALF_AGREEMENT) * float(wide(other).abs().max())
    gap = (wide(one) - wide(other)).abs()
    return bool(((gap <= allowed) | (one == other) | (one.isnan() & other.isnan())).all())
