"""What rules that read whole logits share: they are scored some tokens at a time, so temporaries stay small.

Memory: what a rule makes of logits is at most `CHUNK` numbers at a time. One that compares keeps the logits of the
loop before.
"""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exits.rules.look import Look

CHUNK = 2**18
"""Logits scored at once: 1 MB of fp32, which stays in a core's cache. 16 times more took 1.5 to 2 times as long."""


class AbstractLogitRule(AbstractExitRule):
    """A function of a token's logits, and of its logits one loop before where it compares."""

    needs = ("logits",)

    @abstractmethod
    def score_logits(
        self, logits: Float[Tensor, "tokens vocab"], before: Float[Tensor, "tokens vocab"] | None
    ) -> Float[Tensor, " tokens"]:
        """Return the score of some tokens; `before` is None at loop 1, and for rules that do not compare."""

    def scored(
        self, logits: Float[Tensor, "tokens vocab"], before: Float[Tensor, "tokens vocab"] | None
    ) -> Float[Tensor, " tokens"]:
        """Return `score_logits` of some tokens.

        Raises:
            ValueError: it gives something else than one number per token.
        """
        found: Any = self.score_logits(logits, before)
        if not isinstance(found, Tensor) or found.shape != logits.shape[:1]:
            gave = f"shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ValueError(
                f"exit rule {self.name} gave {gave} as the scores of logits {list(logits.shape)}; expected one number "
                f"per token, [{len(logits)}]"
            )
        return found

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        logits, earlier = look.logits, before.get("logits")
        flat = logits.flatten(0, 1)
        size = max(1, CHUNK // flat.shape[-1])
        parts = flat.split(size)
        pairs = (
            ((part, None) for part in parts)
            if earlier is None
            else zip(parts, earlier.flatten(0, 1).split(size), strict=True)
        )
        scores = torch.cat([self.scored(part, other) for part, other in pairs])
        return scores.view(logits.shape[:2]), {"logits": logits} if self.compares else {}
