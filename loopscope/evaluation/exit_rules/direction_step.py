"""Direction step: how far a loop turned the state. No readout, and blind to scale as a normed readout is."""

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exit_rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exit_rules.look import Look
from loopscope.recurrence import l2_norm, wide


class DirectionStep(AbstractExitRule):
    """Leaves where ‖u_k - u_{k-1}‖ is small, u = H / ‖H‖: twice the sine of half the angle, from 0 to 2."""

    name = "direction-step"
    needs = ("hidden",)
    leaves = "below"
    high = 2.0
    compares = True

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        # Divided after widening: in bf16 the difference of two near directions would be rounding.
        unit = wide(look.hidden) / l2_norm(look.hidden)[..., None].clamp(min=1e-30)
        if "unit" not in before:
            return torch.full_like(unit[..., 0], torch.inf), {"unit": unit}
        return l2_norm(unit - before["unit"]), {"unit": unit}
