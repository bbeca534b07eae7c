"""Depth per step: drawn from (seed, step), run by the one generator, the gradient cut to the last loops.

Memory: loops before the cut keep no activations, so a step costs the memory of `backprop` loops, however deep it is.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.objectives.depth_config import draw_depths
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll

__all__ = ["draw_depths", "unroll_to"]

States = Generator[LoopState, Tensor | None, None]


def unroll_to(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    depths: Sequence[int],
    backprop: int | None = None,
    loops: int | None = None,
    fewest: int | None = None,
) -> Iterator[LoopState]:
    """Unroll a model to one depth, or each sequence of a batch to its own, and yield the loops' states.

    Args:
        depths: one number, or one per sequence.
        backprop: gradient through the last so many loops of each sequence; the input keeps its gradient.
        loops: loops to yield where that is more than the deepest needs (parts of one batch then agree).
        fewest: loops of the shallowest sequence of all parts, where those have to record the same loops.
    """
    deepest = max(depths) if loops is None else loops
    shallowest = min(depths) if fewest is None else fewest
    tracked = None if backprop is None else deepest - max(0, shallowest - backprop)
    states = unroll(model, input_ids, deepest, tracked)
    cut_alike = (
        backprop is None or shallowest == deepest
    )  # else more loops are recorded than these sequences' own
    if len(set(depths)) == 1 and deepest == depths[0] and cut_alike:
        return states
    return _held(states, torch.tensor(depths, device=input_ids.device).expand(len(input_ids)), backprop)


def _held(states: States, depths: Int[Tensor, " batch"], backprop: int | None) -> Iterator[LoopState]:
    """Keep the state of a sequence that is done, and let a gradient into its last loops only."""
    kept: Tensor | None = None
    state = next(states, None)
    while state is not None:
        moving = state.hidden
        if backprop is not None:
            moving = torch.where((state.loop <= depths - backprop)[:, None, None], moving.detach(), moving)
        going = (state.loop <= depths)[:, None, None]
        kept = moving if kept is None else torch.where(going, moving, kept)
        yield replace(state, hidden=kept)
        try:
            state = states.send(moving)  # cut where it is cut; sequences that are done run on unread
        except StopIteration:
            return
