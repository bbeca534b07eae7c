"""Rotary positions (Su et al., "RoFormer", arXiv 2104.09864)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import wide

ROTARY_BASE = 10_000.0


def rotary_angles(
    seq: int, rotated: int, device: torch.device, base: float = ROTARY_BASE, scaling: float = 1.0
) -> tuple[Float[Tensor, "seq half"], Float[Tensor, "seq half"]]:
    """Return cosines and sines of every position's angles, in fp32, for positions 0 to seq - 1.

    Args:
        rotated: channels that are rotated, an even number.
        scaling: what positions are divided by (Chen et al., position interpolation, arXiv 2306.15595).
    """
    positions = torch.arange(seq, device=device)
    return angles_at(positions, rotated, base, scaling)


def angles_at(
    positions: Int[Tensor, "... seq"], rotated: int, base: float = ROTARY_BASE, scaling: float = 1.0
) -> tuple[Float[Tensor, "... seq half"], Float[Tensor, "... seq half"]]:
    """Return cosines and sines of the angles at these positions, in fp32; arguments as in `rotary_angles`."""
    frequency = base ** (-torch.arange(0, rotated, 2, device=positions.device, dtype=torch.float32) / rotated)
    position = positions.float()
    angle = (position if scaling == 1 else position / scaling)[..., None] * frequency
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "batch heads seq head_dim"],
    cos: Float[Tensor, "... seq half"],
    sin: Float[Tensor, "... seq half"],
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Return x with channel pairs (i, i + half) rotated by their position's angle; dtype and norms stay."""
    first, second = wide(x).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
