"""What generation asks of an exit rule. The rules themselves live elsewhere: whoever has one fits it to this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.recurrence import LoopState, narrow


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


class RowRules:
    """The rules of a batch's rows, each asked about its own rows; None never leaves early.

    What each keeps is kept for all rows, zeros at those of others, so that rows that leave are cut from it alike.
    """

    def __init__(self, rules: Sequence[ExitRule | None]) -> None:
        self._rules = list(rules)
        self._distinct = [rule for rule in distinct(rules) if rule is not None]

    def decide(self, state: LoopState, before: Mapping[str, Tensor]) -> Decision:
        """Decide who leaves at this loop: see `ExitRule`."""
        here = state.hidden.device
        rows = before.get("rows", torch.arange(len(self._rules), device=here))
        leave = torch.zeros(len(rows), dtype=torch.bool, device=here)
        kept: dict[str, Tensor] = {"rows": rows}
        logits: Tensor | None = None
        read = "readout" not in state.model.remembers  # whose layers are to note that these rows were read
        for number, rule in enumerate(self._distinct):
            own = [place for place, row in enumerate(rows.tolist()) if self._rules[row] == rule]
            if not own:
                continue
            places, prefix = torch.tensor(own, device=here), f"{number} "
            mine = {
                name.removeprefix(prefix): value[places]
                for name, value in before.items()
                if name.startswith(prefix)
            }
            decision = rule.decide(narrow(state, places), mine)
            leave[places] = decision.leave.to(here)
            for name, value in decision.kept.items():
                kept[prefix + name] = _spread(value, places, len(rows))
            read = read and decision.logits is not None
            if decision.logits is not None:
                logits = _spread(decision.logits, places, len(rows), logits)
        return Decision(leave, kept, logits if read else None)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep only the rules of these rows: all others have ended."""
        self._rules = [self._rules[row] for row in rows.tolist()]


def distinct(rules: Sequence[ExitRule | None]) -> list[ExitRule | None]:
    """Return rules without those that equal an earlier one."""
    found: list[ExitRule | None] = []
    for rule in rules:
        if rule not in found:
            found.append(rule)
    return found


def _spread(value: Tensor, places: Tensor, count: int, onto: Tensor | None = None) -> Tensor:
    """What some rows have, as what all rows have."""
    whole = value.new_zeros(count, *value.shape[1:]) if onto is None else onto
    whole[places] = value
    return whole
