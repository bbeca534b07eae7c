"""KL divergence between the next-token distributions of successive loops (as in Huginn's adaptive exits)."""

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.logit_rule import AbstractLogitRule
from loopscope.numerics import wide


class KLDivergence(AbstractLogitRule):
    """Leaves where KL(loop k ‖ loop k - 1), in nats, is small: the loops have stopped changing the answer.

    Source: Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning", arXiv 2502.05171.
    Memory: the logits of the loop before are kept.
    """

    name = "kl"
    leaves = "below"
    compares = True

    def score_logits(
        self, logits: Float[Tensor, "tokens vocab"], before: Float[Tensor, "tokens vocab"] | None
    ) -> Float[Tensor, " tokens"]:
        if before is None:
            return torch.full_like(wide(logits[:, 0]), torch.inf)
        now = wide(logits).log_softmax(dim=1).clamp(min=-1e30)
        then = wide(before).log_softmax(dim=1).clamp(min=-1e30)
        return (now.exp() * (now - then)).sum(dim=1).clamp(min=0)
