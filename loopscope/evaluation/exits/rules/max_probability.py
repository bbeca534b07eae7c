"""Maximum probability: that of the likeliest token."""

from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.logit_rule import AbstractLogitRule
from loopscope.numerics import powers_of, wide


class MaxProbability(AbstractLogitRule):
    """Leaves where the likeliest token is likely enough."""

    name = "max-probability"
    high = 1.0

    def score_logits(
        self, logits: Float[Tensor, "tokens vocab"], before: Float[Tensor, "tokens vocab"] | None
    ) -> Float[Tensor, " tokens"]:
        values = wide(logits)
        return 1 / powers_of(values - values.amax(dim=1, keepdim=True)).sum(dim=1)
