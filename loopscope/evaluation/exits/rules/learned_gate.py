"""Learned gate: the probability, by the model's own gate, of having stopped by now."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exits.rules.look import Look
from loopscope.recurrence import AbstractLoopedLM, unroll


class LearnedGate(AbstractExitRule):
    """Leaves where 1 - prod_{j<=k} (1 - λ_j), the exit distribution summed up to k, reaches the threshold.

    Source: Zhu et al., "Scaling Latent Reasoning via Looped Language Models", 2025 (Ouro's Q-exit).
    """

    name = "gate"
    needs = ("gate",)
    high = 1.0

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        left = (1 - look.gate) * before.get("left", 1.0)
        return 1 - left, {"left": left}

    @torch.no_grad()
    def check_model(self, model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> None:
        _ = Look(next(unroll(model, input_ids[:1], 1))).gate
