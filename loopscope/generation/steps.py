"""The two ways to get the next token's logits: over a cache, or by computing the whole text anew.

Both take the newest token of every row and give logits and the loop each row was read at; `select` drops rows whose
texts have ended.
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.generation.exits import ExitRule, NewestToken
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll


@dataclass(frozen=True)
class StepOutput:
    """What one step of generation gives.

    Attributes:
        logits: of the token after the newest one.
        loops: the loop that each row's newest token left at.
    """

    logits: Float[Tensor, "rows vocab"]
    loops: Int[Tensor, " rows"]


class AbstractSteps(ABC):
    """One batch of texts, which grows by a token at every step."""

    @abstractmethod
    def prefill(self, input_ids: Int[Tensor, "rows seq"]) -> None:
        """Take the texts without their newest tokens; padding is on the left. A text may come in pieces, in order."""

    @abstractmethod
    def step(self, tokens: Int[Tensor, " rows"]) -> StepOutput:
        """Add a token to every row, and return the logits of the next one."""

    @abstractmethod
    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep only these rows, and forget all others."""


class RecomputedSteps(AbstractSteps):
    """Steps without a cache: each runs every loop over the whole text, which is as long in every row. The reference.

    An early exit saves nothing but the loops after the last row has left; earlier tokens always run as deep as the
    newest one needs, so nothing is ever missing.
    """

    def __init__(self, model: AbstractLoopedLM, loops: int, rule: ExitRule | None) -> None:
        self._model, self._loops, self._rule = model, loops, rule
        self._ids: Tensor | None = None

    def prefill(self, input_ids: Int[Tensor, "rows seq"]) -> None:
        self._ids = input_ids if self._ids is None else torch.cat([self._ids, input_ids], dim=1)

    def step(self, tokens: Int[Tensor, " rows"]) -> StepOutput:
        self.prefill(tokens[:, None])
        ids = self._ids
        assert ids is not None
        if self._rule is None:
            (last,) = deque(unroll(self._model, ids, self._loops), maxlen=1)
            return StepOutput(_newest_logits(last), torch.full((len(ids),), self._loops))
        logits: Tensor | None = None
        loops, going = torch.zeros(len(ids), dtype=torch.int64), torch.ones(len(ids), dtype=torch.bool)
        before: dict[str, Tensor] = {}
        for state in unroll(self._model, ids, self._loops):
            newest = NewestToken.of(state)
            decision = None if state.is_last else self._rule.decide(newest, before)
            leaving = going if decision is None else going & decision.leave.cpu()
            if bool(leaving.any()):
                known_logits = None if decision is None else decision.logits
                newest_logits = newest.logits()[:, -1] if known_logits is None else known_logits
                logits = torch.zeros_like(newest_logits) if logits is None else logits
                logits[leaving.to(newest_logits.device)] = newest_logits[leaving.to(newest_logits.device)]
                loops[leaving] = state.loop
                going = going & ~leaving
            if not bool(going.any()) or decision is None:
                break
            before = dict(decision.kept)
        assert logits is not None
        return StepOutput(logits, loops)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        self._ids = None if self._ids is None else self._ids[rows]


def _newest_logits(state: LoopState) -> Float[Tensor, "rows vocab"]:
    """Logits of the newest token alone: the head is not run on the others."""
    return state.model.head(state.features()[:, -1])
