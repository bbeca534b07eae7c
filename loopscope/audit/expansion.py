"""Drift: how scale moves over loops, also beyond the trained depth, and how well the expansion fits.

For a pre-norm residual recurrence at large scale, s_{k+1} - s_k tends to a constant (the radial increment)
and the angular step ‖u_{k+1} - u_k‖ to a constant over s_k. One unroll, a few states alive at a time: memory
does not grow with depth.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.audit.model_end import as_far_as_it_runs
from loopscope.numerics import l2_norm, scale, wide
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll, unroll_from
from loopscope.results import Expansion, Fit


@torch.no_grad()
def measure_expansion(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], loops: int) -> Expansion:
    """Unroll to `loops` and return how the state's scale grows and its direction turns, loop by loop.

    Args:
        input_ids: token ids [batch seq].
        loops: how deep, also past the trained depth; memory does not grow with it.
    """
    return expansion_of(as_far_as_it_runs(unroll(model, input_ids, loops), model.loops))


@torch.no_grad()
def deeper(states: Sequence[LoopState], loops: int) -> Iterator[LoopState]:
    """Yield loops 1 to `loops` of an unroll that was run to its trained depth already, without running those again.

    A model whose states depend on the depth, or that keeps more than H_k from loop to loop, is run from the start.
    """
    last = states[-1]
    if last.model.depth_conditioned or not last.model.stateless:
        yield from unroll(last.model, last.context.input_ids, loops)
        return
    context = replace(last.context, loops=loops)
    yield from (replace(state, context=context) for state in states)
    yield from unroll_from(replace(last, context=context), last.hidden)


@torch.no_grad()
def expansion_of(states: Iterable[LoopState]) -> Expansion:
    """Return how the scale of these states grows and their direction turns; from loop 1 on, at least one.

    A few are alive at a time.
    """
    names = ("rms", "l2", "radial", "angular", "step", "cosine", "update")
    columns: dict[str, list[float]] = {name: [] for name in names}
    before: Tensor | None = None
    last_update: Tensor | None = None
    for state in states:
        hidden = wide(state.hidden)
        columns["rms"].append(float(scale(hidden).mean()))
        columns["l2"].append(float(l2_norm(hidden).mean()))
        if before is not None:
            update = hidden - before
            columns["radial"].append(float((direction(before) * update).mean(dim=-1).mean()))
            columns["angular"].append(float(l2_norm(direction(hidden) - direction(before)).mean()))
            columns["step"].append(float((l2_norm(update) / l2_norm(before).clamp(min=1e-12)).mean()))
            columns["cosine"].append(float(torch.cosine_similarity(hidden, before, dim=-1).mean()))
            if last_update is not None:
                columns["update"].append(float(torch.cosine_similarity(update, last_update, dim=-1).mean()))
            last_update = update
        before = hidden
    rms = columns["rms"]
    return Expansion(
        rms=tuple(rms),
        l2_norm=tuple(columns["l2"]),
        radial_increment=tuple(columns["radial"]),
        angular_step=tuple(columns["angular"]),
        step_size=tuple(columns["step"]),
        direction_cosine=tuple(columns["cosine"]),
        update_cosine=tuple(columns["update"]),
        growth=fit([float(loop) for loop in range(1, len(rms) + 1)], rms),
        turning=fit([1 / max(s, 1e-12) for s in rms[:-1]], columns["angular"]),
    )


def direction(hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    """Return u_k = H_k / s_k: every token's state at RMS 1."""
    return hidden / scale(hidden)[..., None].clamp(min=1e-12)


def fit(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """Fit a line by least squares; None where there are fewer than three points, or all x are equal."""
    count = len(y)
    mean_x, mean_y = sum(x) / max(count, 1), sum(y) / max(count, 1)
    xx = sum((value - mean_x) ** 2 for value in x)
    yy = sum((value - mean_y) ** 2 for value in y)
    if count < 3 or xx == 0 or not math.isfinite(xx + yy):
        return None
    xy = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    slope = xy / xx
    return Fit(slope, mean_y - slope * mean_x, xy**2 / (xx * yy) if yy else 1.0)
