"""Rotary positions (Su et al., "RoFormer", arXiv 2104.09864)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.model.config.sections import AttentionConfig, RotaryFormula
from loopscope.numerics import wide


@dataclass(frozen=True)
class RotaryTurns:
    """How fast channels turn with the position, and by which angles they have turned at one.

    Attributes:
        rotated: channels that are rotated, an even number: half as many pairs, each of its own speed.
        base: the longest wavelength is about 2π times this.
        scaling: what positions are divided by (Chen et al., position interpolation, arXiv 2306.15595).
        bands: (low, high, length): scale only pairs that turn seldom within `length` tokens, as Llama 3.1 does
            (Grattafiori et al., arXiv 2407.21783); None: all alike.
        formula: how a speed is rounded: base^(-i/n), or 1 / base^(i/n) as transformers does.
    """

    rotated: int
    base: float = 10_000.0
    scaling: float = 1.0
    bands: tuple[float, float, int] | None = None
    formula: RotaryFormula = "power"

    @classmethod
    def of(cls, settings: AttentionConfig, rotated: int) -> "RotaryTurns":
        """Return those that a config's attention section asks for."""
        return cls(
            rotated,
            settings.rotary_base,
            settings.rotary_scaling,
            settings.rotary_bands,
            settings.rotary_formula,
        )

    def angles(
        self, positions: Int[Tensor, "... seq"]
    ) -> tuple[Float[Tensor, "... seq half"], Float[Tensor, "... seq half"]]:
        """Return cosines and sines of the angles at these positions, in fp32."""
        position = positions.float()
        if self.formula == "power" and self.bands is None and self.scaling != 1:
            position = position / self.scaling
        angle = position[..., None] * self._speeds(positions.device)
        return angle.cos(), angle.sin()

    def _speeds(self, device: torch.device) -> Float[Tensor, " half"]:
        """Radians a token, pair by pair."""
        pairs = torch.arange(0, self.rotated, 2, device=device, dtype=torch.float32)
        if self.formula == "power":
            speed = self.base ** (-pairs / self.rotated)
        else:
            speed = 1.0 / (self.base ** (pairs / self.rotated))
        if self.bands is not None:
            return self._in_bands(speed, *self.bands)
        return speed if self.formula == "power" or self.scaling == 1 else speed / self.scaling

    def _in_bands(
        self, speed: Float[Tensor, " half"], low: float, high: float, length: int
    ) -> Float[Tensor, " half"]:
        wavelength = 2 * math.pi / speed
        slow = wavelength > length / low
        share = (length / wavelength - low) / (high - low)
        mixed = (1 - share) * speed / self.scaling + share * speed
        between = ~slow & ~(wavelength < length / high)
        return torch.where(between, mixed, torch.where(slow, speed / self.scaling, speed))


def rotate(
    x: Float[Tensor, "batch heads seq head_dim"],
    cos: Float[Tensor, "... seq half"],
    sin: Float[Tensor, "... seq half"],
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Return x with channel pairs (i, i + half) rotated by their position's angle; dtype and norms stay."""
    first, second = wide(x).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
