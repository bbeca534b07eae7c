"""What one loop shows to exit rules. Nothing is computed before it is asked for, and then once.

Memory: what was asked for lives as long as the look: logits are batch × seq × vocab numbers.
"""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import wide
from loopscope.recurrence import LoopState


class Look:
    """One loop of an unroll, as rules see it."""

    def __init__(self, state: LoopState) -> None:
        self.state = state

    @property
    def loop(self) -> int:
        """1-based."""
        return self.state.loop

    @property
    def hidden(self) -> Float[Tensor, "batch seq dim"]:
        """H_k."""
        return self.state.hidden

    @property
    def start(self) -> Float[Tensor, "batch seq dim"]:
        """H_0 of the same tokens: what the first loop starts from (of a text, perhaps only the newest are shown)."""
        return self.state.context.embedded[:, -self.hidden.shape[1] :]

    @cached_property
    def features(self) -> Float[Tensor, "batch seq features"]:
        """What the head reads here."""
        return self.state.features()

    @cached_property
    def logits(self) -> Float[Tensor, "batch seq vocab"]:
        """This exit's logits: a whole readout."""
        return self.state.model.head(self.features)

    @cached_property
    def gate(self) -> Float[Tensor, "batch seq"]:
        """Probability of stopping here, as the model's own gate says.

        Raises:
            ValueError: the model has no gate.
        """
        logit = self.state.gate_logit()
        if logit is None:
            raise ValueError(
                "rule 'gate' needs a model with an exit gate, and this one has none; train one with "
                "model.exit_gate: true (--objective.placement exit-weighted), or use another rule"
            )
        return torch.sigmoid(wide(logit))
