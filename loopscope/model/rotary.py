"""Rotary positions (Su et al., "RoFormer", arXiv 2104.09864)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import wide

ROTARY_BASE = 10_000.0


def rotary_angles(
    seq: int, head: int, device: torch.device, base: float = ROTARY_BASE, scaling: float = 1.0
) -> tuple[Float[Tensor, "seq half"], Float[Tensor, "seq half"]]:
    """Cosines and sines of Su et al., "RoFormer" (arXiv 2104.09864), in fp32, for positions 0..seq-1.

    Args:
        head: channels that turn.
        scaling: what positions are divided by (Chen et al., position interpolation, arXiv 2306.15595).
    """
    place = torch.arange(seq, device=device)
    return angles_at(place, head, base, scaling)


def angles_at(
    places: Int[Tensor, "... seq"], head: int, base: float = ROTARY_BASE, scaling: float = 1.0
) -> tuple[Float[Tensor, "... seq half"], Float[Tensor, "... seq half"]]:
    """`rotary_angles` at any positions."""
    frequency = base ** (-torch.arange(0, head, 2, device=places.device, dtype=torch.float32) / head)
    place = places.float()
    angle = (place if scaling == 1 else place / scaling)[..., None] * frequency
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "batch heads seq head_dim"],
    cos: Float[Tensor, "... seq half"],
    sin: Float[Tensor, "... seq half"],
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Rotate channel pairs (i, i + half) by their position's angle; keeps the dtype and every norm."""
    first, second = wide(x).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
