"""Entropy confidence: 1 minus the entropy of the next token over the logarithm of the vocabulary."""

import math

from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exit_rules.logit_rule import AbstractLogitRule
from loopscope.recurrence import wide


class EntropyConfidence(AbstractLogitRule):
    """Leaves where the whole distribution is narrow: 0 for uniform, 1 for certain."""

    name = "entropy-confidence"
    high = 1.0

    def score_logits(
        self, logits: Float[Tensor, "tokens vocab"], before: Float[Tensor, "tokens vocab"] | None
    ) -> Float[Tensor, " tokens"]:
        logs = wide(logits).log_softmax(dim=1)
        # A probability of 0 times the logarithm -inf of a masked token counts as 0.
        entropy = -(logs.exp() * logs.clamp(min=-1e30)).sum(dim=1)
        return (1 - entropy / math.log(logits.shape[1])).clamp(0, 1)
