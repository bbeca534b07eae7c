"""Hidden-state step: how far a loop moved the state, relative to its size. No readout."""

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exit_rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exit_rules.look import Look
from loopscope.recurrence import l2_norm


class HiddenStep(AbstractExitRule):
    """Leaves where ‖H_k - H_{k-1}‖ / ‖H_k‖ is small.

    A state that only grows also makes steps: where a readout hides the scale, `direction-step` sees what it reads.
    """

    name = "hidden-step"
    needs = ("hidden",)
    leaves = "below"
    compares = True

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        size = l2_norm(look.hidden)
        if "hidden" not in before:
            return torch.full_like(size, torch.inf), {"hidden": look.hidden}
        return l2_norm(look.hidden - before["hidden"]) / size.clamp(min=1e-30), {"hidden": look.hidden}
