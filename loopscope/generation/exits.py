"""What generation asks of an exit rule. The rules themselves live elsewhere: whoever has one fits it to this."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.recurrence import LoopState


@dataclass(frozen=True)
class Decision:
    """An exit rule's decision at one loop: who leaves.

    Attributes:
        leave: rows whose newest token leaves here.
        kept: what the rule wants back at the next loop, rows first; rows that left are cut.
        logits: of the newest token, where the rule has read them: then they are not computed again.
    """

    leave: Bool[Tensor, " rows"]
    kept: Mapping[str, Tensor]
    logits: Float[Tensor, "rows vocab"] | None = None


@runtime_checkable
class ExitRule(Protocol):
    """What decides, for the newest token of every row, whether it leaves: asked at every loop before the last."""

    def decide(self, state: LoopState, before: Mapping[str, Tensor]) -> Decision:
        """Decide who leaves at this loop.

        Args:
            state: the loop's state, of the newest tokens alone: `hidden` is `[rows 1 dim]`.
            before: what it kept at the loop before; empty at loop 1.
        """


@dataclass(frozen=True)
class NewestToken(LoopState):
    """The newest tokens of a state that holds whole texts: what rules see where nothing is cached."""

    whole: LoopState

    @staticmethod
    def of(whole: LoopState) -> "NewestToken":
        """Return the newest tokens' part of a state of whole texts."""
        context = whole.context
        newest = replace(context, input_ids=context.input_ids[:, -1:], embedded=context.embedded[:, -1:])
        return NewestToken(whole.loop, whole.hidden[:, -1:], whole.model, newest, whole)

    def features(self) -> Float[Tensor, "rows 1 dim"]:
        return self.whole.features()[:, -1:]

    def gate_logit(self) -> Float[Tensor, "rows 1"] | None:
        logit = self.whole.gate_logit()
        return None if logit is None else logit[:, -1:]
