"""The exit gate's second stage: trained on whether another loop measurably helped, all else held fixed.

Zhu et al., "Scaling Latent Reasoning via Looped Language Models" (arXiv 2510.25741), stage II: with I_k = max(0,
CE_{k-1} - CE_k) per token, going on was right with probability w_k = σ(slope·(I_k - threshold)); the gate's 1 - λ_k is
fitted to w_k by binary cross-entropy, averaged over loops 2..K. No gradient leaves the gate.

Training runs the model in evaluation mode for it: with dropout, two loops' losses would differ by its noise, and half
of that noise would count as improvement.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.numerics import wide
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.placement_config import PLACEMENTS
from loopscope.objectives.placements import AbstractPlacement, LossInput, mean_over


class GateImprovement(AbstractPlacement):
    """Placement that trains the exit gate alone, on whether another loop measurably lowered the cross-entropy."""

    declaration = PLACEMENTS.shipped["gate-improvement"].declaration
    name = "gate-improvement"

    def __init__(self, slope: float = 50.0, threshold: float = 0.005) -> None:
        self.slope = slope
        self.threshold = threshold

    @classmethod
    def from_config(cls, config: ObjectiveConfig, settings: Any) -> "GateImprovement":
        return cls(config.gate_slope, config.gate_threshold)

    def reads(self, loop: int, loops: int) -> bool:
        return True

    def terms(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        """Return the gate's one term, `gate_improvement`.

        Raises:
            ValueError: a model without an exit gate, or a single loop.
        """
        if len(loss_inputs) < 2:
            raise ValueError("placement 'gate-improvement' compares loops; it needs 2 or more")
        losses = []
        for before, after in pairwise(loss_inputs):
            assert before.token_loss is not None
            assert after.token_loss is not None
            if after.gate_logit is None:
                raise ValueError(
                    "placement 'gate-improvement' needs a model with an exit gate; set model.exit_gate: true"
                )
            improvement = (before.token_loss - after.token_loss).clamp(min=0)
            going_on = torch.sigmoid(self.slope * (improvement - self.threshold))
            losses.append(
                F.binary_cross_entropy_with_logits(
                    -wide(after.gate_logit), going_on.to(wide(after.gate_logit).dtype), reduction="none"
                )
            )
        return {"gate_improvement": mean_over(torch.stack(losses).mean(dim=0), counted)}

    def shares(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[int, Float[Tensor, ""]]:
        return {}  # no exit's cross-entropy is trained
