"""Drift: how scale moves over loops, also beyond the trained depth, and how well the expansion fits.

For a pre-norm residual recurrence at large scale, s_{k+1} - s_k tends to a constant (the radial increment)
and the angular step ‖u_{k+1} - u_k‖ to a constant over s_k. One unroll, two states alive at a time: memory
does not grow with depth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.recurrence import AbstractLoopedLM, l2_norm, scale, unroll, wide


@dataclass(frozen=True)
class Fit:
    """A least-squares line."""

    slope: float
    intercept: float
    r_squared: float


@dataclass(frozen=True)
class Expansion:
    """Scale per loop, and what changes from loop k to k + 1 (one entry fewer)."""

    rms: tuple[float, ...]  # mean over tokens of s_k
    l2_norm: tuple[float, ...]
    radial_increment: tuple[float, ...]  # mean over tokens and dim of u_k·(H_{k+1} - H_k): RMS units
    angular_step: tuple[float, ...]  # mean over tokens of ‖u_{k+1} - u_k‖, u of RMS 1
    step_size: tuple[float, ...]  # mean over tokens of ‖H_{k+1} - H_k‖ / ‖H_k‖
    direction_cosine: tuple[float, ...]  # mean over tokens of the cosine of H_{k+1} and H_k
    growth: Fit | None  # s_k against k; None for fewer than three loops
    turning: Fit | None  # angular step against 1 / s_k; None for fewer than three steps

    @property
    def drift(self) -> float:
        """s_K / s_1."""
        return self.rms[-1] / self.rms[0]


@torch.no_grad()
def expansion(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], loops: int) -> Expansion:
    """Unroll to `loops` and measure how the state grows and turns."""
    columns: dict[str, list[float]] = {
        name: [] for name in ("rms", "l2", "radial", "angular", "step", "cosine")
    }
    before: Tensor | None = None
    for state in unroll(model, input_ids, loops):
        hidden = wide(state.hidden)
        columns["rms"].append(float(scale(hidden).mean()))
        columns["l2"].append(float(l2_norm(hidden).mean()))
        if before is not None:
            update = hidden - before
            columns["radial"].append(float((direction(before) * update).mean(dim=-1).mean()))
            columns["angular"].append(float(l2_norm(direction(hidden) - direction(before)).mean()))
            columns["step"].append(float((l2_norm(update) / l2_norm(before)).mean()))
            columns["cosine"].append(float(torch.cosine_similarity(hidden, before, dim=-1).mean()))
        before = hidden
    rms = columns["rms"]
    return Expansion(
        rms=tuple(rms),
        l2_norm=tuple(columns["l2"]),
        radial_increment=tuple(columns["radial"]),
        angular_step=tuple(columns["angular"]),
        step_size=tuple(columns["step"]),
        direction_cosine=tuple(columns["cosine"]),
        growth=fit([float(loop) for loop in range(1, loops + 1)], rms),
        turning=fit([1 / s for s in rms[:-1]], columns["angular"]),
    )


def direction(hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    """u_k = H_k / s_k: every token at RMS 1."""
    return hidden / scale(hidden)[..., None].clamp(min=1e-12)


def fit(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """A least-squares line through at least three points; None where there are fewer, or all x are equal."""
    count = len(y)
    mean_x, mean_y = sum(x) / max(count, 1), sum(y) / max(count, 1)
    xx = sum((value - mean_x) ** 2 for value in x)
    yy = sum((value - mean_y) ** 2 for value in y)
    if count < 3 or xx == 0 or not math.isfinite(xx + yy):
        return None
    xy = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    slope = xy / xx
    return Fit(slope, mean_y - slope * mean_x, xy**2 / (xx * yy) if yy else 1.0)
