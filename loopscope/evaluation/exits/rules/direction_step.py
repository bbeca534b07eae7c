"""Direction step: how far a loop turned the state. No readout, and blind to scale as a normed readout is."""

from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exits.rules.look import Look
from loopscope.numerics import l2_norm, wide


class DirectionStep(AbstractExitRule):
    """Leaves where ‖u_k - u_{k-1}‖ is small, u = H / ‖H‖: twice the sine of half the angle, from 0 to 2.

    H_0 is what the first loop starts from.
    """

    name = "direction-step"
    needs = ("hidden",)
    leaves = "below"
    high = 2.0

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        unit = _unit(look.hidden)
        earlier = before["unit"] if "unit" in before else _unit(look.start)
        return l2_norm(unit - earlier), {"unit": unit}


def _unit(hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    # Divided after widening: in bf16 the difference of two near directions would be rounding.
    return wide(hidden) / l2_norm(hidden)[..., None].clamp(min=1e-30)
