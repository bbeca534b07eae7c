"""Entropy confidence: 1 minus the entropy of the next token over the logarithm of the vocabulary."""

import math

from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.logit_rule import AbstractLogitRule
from loopscope.numerics import LOWEST_POWER, wide


class EntropyConfidence(AbstractLogitRule):
    """Leaves where the whole distribution is narrow: 0 for uniform, 1 for certain."""

    name = "entropy-confidence"
    high = 1.0

    def score_logits(
        self, logits: Float[Tensor, "tokens vocab"], before: Float[Tensor, "tokens vocab"] | None
    ) -> Float[Tensor, " tokens"]:
        below = wide(logits) - wide(logits.amax(dim=1, keepdim=True))
        below.clamp_(min=LOWEST_POWER)  # what a masked token has, too: next to nothing of the whole
        weights = below.exp()
        whole = weights.sum(dim=1)
        entropy = whole.log() - (weights * below).sum(dim=1) / whole  # of weights / whole
        return (1 - entropy / math.log(logits.shape[1])).clamp(0, 1)
