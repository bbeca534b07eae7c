"""Hidden-state step: how far a loop moved the state, relative to its size. No readout."""

from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exits.rules.look import Look
from loopscope.numerics import l2_norm


class HiddenStep(AbstractExitRule):
    """Leaves where ‖H_k - H_{k-1}‖ / ‖H_k‖ is small; H_0 is what the first loop starts from.

    A state that only grows also makes steps: where a readout hides the scale, `direction-step` sees what it reads.
    """

    name = "hidden-step"
    needs = ("hidden",)
    leaves = "below"

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        earlier = before.get("hidden", look.start)
        step = l2_norm(look.hidden - earlier) / l2_norm(look.hidden).clamp(min=1e-30)
        return step, {"hidden": look.hidden}
