"""One unroll, watched by one exit rule: who leaves at each loop. Shared by every driver that exits early.

A driver calls it with every state but the last; where rows leave its batch, it tells the watch so with `narrow`.
Memory: what the rule keeps of one loop, and the look at the loop at hand with whatever it read (`look.logits`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exits.rules.look import Look
from loopscope.evaluation.exits.scores import score_tokens, sequence_means
from loopscope.recurrence import LoopState
from loopscope.results.evaluations import Unit


class Watch:
    """An exit rule at work on one unroll: says at every loop who leaves.

    Attributes:
        look: the look at the loop at hand. Where the rule reads logits they are there already: an exit taken here
            needs no readout of its own.

    Raises:
        ValueError: a threshold out of the rule's range; a rule that declares what nothing knows.
    """

    def __init__(self, rule: AbstractExitRule, threshold: Any, unit: Unit = "sequence") -> None:
        rule.check_declared()
        self.rule = rule
        self.threshold = rule.check_threshold(threshold)
        self.unit = unit
        self.look: Look | None = None
        self._kept: Kept = {}

    def __call__(self, state: LoopState) -> Bool[Tensor, "batch *seq"]:
        """Return who leaves at this loop: [batch] per sequence (by its tokens' mean score), [batch seq] per token.

        Raises:
            ValueError: see `score_tokens` and `sequence_means`.
        """
        self.forget()
        look = Look(state)
        scores, self._kept = score_tokens(self.rule, look, self._kept)
        self.look = look
        if self.unit == "sequence":
            scores = sequence_means(self.rule, look, scores)
        return self.rule.fires(scores, self.threshold)

    def narrow(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep only these rows of the batch: the others have left."""
        kept: Mapping[str, Tensor] = {name: value[rows] for name, value in self._kept.items()}
        self._kept = kept
        self.forget()

    def forget(self) -> None:
        """Drop the look at the loop at hand: its logits need not stay through the next loop."""
        self.look = None

    @property
    def logits(self) -> torch.Tensor | None:
        """Logits of the loop at hand, where the rule read them; else None."""
        return self.look.logits if self.look is not None and "logits" in self.rule.needs else None
