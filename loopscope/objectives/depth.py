"""Depth per step: drawn from (seed, step), run by the one generator, the gradient cut to the last loops.

Memory: loops before the cut keep no activations, so a step costs the memory of `backprop` loops, however deep it is.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.objectives.schedules import DepthConfig
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll

States = Generator[LoopState, Tensor | None, None]

_STREAM = 0xDE97  # keeps these draws apart from every other use of (seed, step)


def draw_depths(config: DepthConfig, loops: int, seed: int, step: int, count: int) -> tuple[int, ...]:
    """Depths of step `step` (0-based): one, or one per sequence of a batch of `count`.

    Args:
        loops: the model's trained depth.

    The log-normal Poisson is that of Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning" (arXiv
    2502.05171): τ ~ N(log mean - spread²/2, spread), depth = 1 + Poisson(e^τ).
    """
    generator = np.random.default_rng([_STREAM, seed, step])
    draws = count if config.per_sequence else 1
    mean = float(loops if config.mean is None else config.mean)
    match config.distribution:
        case "fixed":
            depths = np.full(draws, round(_grown(config, mean, step)))
        case "uniform":
            high = round(_grown(config, float(config.high or loops), step))
            depths = generator.integers(config.low, max(high, config.low), size=draws, endpoint=True)
        case "lognormal-poisson":
            centre = np.log(_grown(config, mean, step)) - config.spread**2 / 2
            depths = 1 + generator.poisson(np.exp(generator.normal(centre, config.spread, size=draws)))
    limited = np.clip(depths, config.low, config.high)
    return tuple(int(depth) for depth in limited)


def unroll_to(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    depths: Sequence[int],
    backprop: int | None = None,
    loops: int | None = None,
) -> Iterator[LoopState]:
    """Unroll to one depth, or each sequence to its own.

    Args:
        depths: one number, or one per sequence.
        backprop: gradient through the last so many loops of each sequence; the input keeps its gradient.
        loops: loops to yield where that is more than the deepest needs (parts of one batch then agree).
    """
    deepest = max(depths) if loops is None else loops
    tracked = None if backprop is None else deepest - max(0, min(depths) - backprop)
    states = unroll(model, input_ids, deepest, tracked)
    if len(set(depths)) == 1 and deepest == depths[0]:
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


def _grown(config: DepthConfig, value: float, step: int) -> float:
    """The curriculum: linear from low to `value` over the first steps."""
    if step >= config.curriculum:
        return value
    return config.low + (value - config.low) * step / config.curriculum
