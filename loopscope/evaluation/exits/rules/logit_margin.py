"""Logit margin: the largest logit minus the second."""

from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.largest import two_largest
from loopscope.evaluation.exits.rules.logit_rule import AbstractLogitRule
from loopscope.numerics import wide


class LogitMargin(AbstractLogitRule):
    """Leaves where the likeliest token is far ahead. In logits, so it grows with their scale."""

    name = "logit-margin"

    def score_logits(
        self, logits: Float[Tensor, "tokens vocab"], before: Float[Tensor, "tokens vocab"] | None
    ) -> Float[Tensor, " tokens"]:
        first, second = wide(two_largest(logits)).unbind(dim=1)
        return first - second
