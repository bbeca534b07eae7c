"""Fixed depth, as a rule: what the others are compared with."""

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exits.rules.look import Look


class Fixed(AbstractExitRule):
    """Leaves at the loop that the threshold names, whatever is seen there."""

    name = "fixed"
    low = 1.0

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        return torch.full(look.shape, float(look.loop), device=look.state.hidden.device), {}
