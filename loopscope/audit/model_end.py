"""Where a model ends: the loop past which it does not run, and what is said of it and of the loops before.

A table with a row for every trained loop has none for one more; a model whose states depend on its depth may refuse any
deeper one. Whatever a stranger's forward raises there ends the measurement, not the audit; memory that gives out does.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.numerics import has_scale
from loopscope.recurrence import AbstractLoopedLM, LoopState, next_hidden, unroll
from loopscope.recurrence.model_errors import OUT_OF_MEMORY, in_one_line
from loopscope.results import Carry, LoopVerdict

NOTHING_CARRIED = 0.0
"""Carry of an only loop that no other can follow."""


@torch.no_grad()
def why_no_further(state: LoopState) -> str | None:
    """Return what a model says of one loop more than this; None where it runs it."""
    try:
        later = next_hidden(state, state.hidden)
    except OUT_OF_MEMORY:
        raise
    except Exception as error:
        return in_one_line(error)
    return None if has_scale(later) else "its state is not finite there"


def or_of_the_loop_before(measure: Callable[[], Carry], state: LoopState, before: Sequence[Carry]) -> Carry:
    """Return a loop's carry, or the last known one where the state is the last and no loop can follow it.

    An only loop carries nothing on then.

    Args:
        measure: gives the carry, or raises.
        state: the loop's.
        before: carries of the loops before it.
    """
    stands_in = state.loop >= state.context.loops
    known = before[-1] if before else Carry(state.loop, NOTHING_CARRIED, 0.0, 0.0, 0.0)
    try:
        found = measure()
    except Exception:
        if not stands_in or why_no_further(state) is None:
            raise
        return replace(known, loop=state.loop)
    unknown = stands_in and not math.isfinite(found.mean) and why_no_further(state) is not None
    return replace(known, loop=state.loop) if unknown else found


@torch.no_grad()
def depth_that_runs(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], loops: int) -> int:
    """Return the deepest unroll of at most `loops` that a model runs, the trained depth or more.

    Asked, with the first sequence, of a model whose unroll is known before its first state: one whose states depend on
    its depth, or that keeps more than H_k. Any other is run until it ends (`as_far_as_it_runs`).
    """

    def runs(depth: int) -> bool:
        try:
            for _ in unroll(model, input_ids[:1], depth):
                pass
        except OUT_OF_MEMORY:
            raise
        except Exception:
            return False
        return True

    if (model.stateless and not model.depth_conditioned) or loops <= model.loops or runs(loops):
        return loops
    deepest, too_deep = model.loops, loops
    while too_deep - deepest > 1:
        middle = (deepest + too_deep) // 2
        deepest, too_deep = (middle, too_deep) if runs(middle) else (deepest, middle)
    return deepest


def as_far_as_it_runs(states: Iterable[LoopState], trained: int) -> Iterator[LoopState]:
    """Yield states until the model has no loop more, which may come at any depth past the trained one."""
    loop, following = 0, iter(states)
    while True:
        try:
            state = next(following)
        except StopIteration:
            return
        except OUT_OF_MEMORY:
            raise
        except Exception:
            if loop < trained:
                raise
            return
        loop = state.loop
        yield state


def of_no_further_loop(states: Sequence[LoopState], loops: Sequence[LoopVerdict]) -> list[str]:
    """Say that a model does not run past its trained depth.

    Asked of it where it may be so alone, since that costs a loop: the last carry is the one before's then.
    """
    trained = len(loops)
    if loops[-1].carry != (loops[-2].carry if trained > 1 else NOTHING_CARRIED):
        return []
    said = why_no_further(states[-1])
    if said is None:
        return []
    if trained == 1:
        return [
            f"It does not run 2 loops ({said}): nothing is carried on, and nothing was measured past loop 1."
        ]
    return [
        f"It does not run {trained + 1} loops ({said}): the carry and the map of loop {trained} are those of loop "
        f"{trained - 1}, and nothing was measured past loop {trained}."
    ]


def of_an_end(followed: int, trained: int, asked: int) -> list[str]:
    """Say where a model ends that runs deeper than it was trained, and not as deep as is asked."""
    if trained >= followed or followed == asked:
        return []
    return [f"It does not run {followed + 1} loops: nothing was measured past loop {followed}."]
