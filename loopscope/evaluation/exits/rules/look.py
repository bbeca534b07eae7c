"""What one loop shows to exit rules. Nothing is computed before it is asked for, and then once.

Memory: what was asked for lives as long as the look: logits are batch × seq × vocab numbers.
"""

from collections.abc import Callable, Collection
from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import wide
from loopscope.recurrence import LoopState


class Look:
    """One loop of an unroll, as rules see it: all of it, or (`declared`) what one rule says that it needs."""

    def __init__(self, state: LoopState) -> None:
        self.state = state
        self._made: dict[str, Tensor] = {}
        self._rule = ""
        self._needs: Collection[str] | None = None

    def declared(self, rule: str, needs: Collection[str]) -> "Look":
        """Return this look with what a rule declares and nothing else: costs count what is declared.

        Both share what is computed.
        """
        shown = copy(self)
        shown._rule, shown._needs = rule, needs
        return shown

    @property
    def loop(self) -> int:
        """1-based."""
        return self.state.loop

    @property
    def shape(self) -> torch.Size:
        """[batch seq]: of the scores that a rule gives."""
        return self.state.hidden.shape[:2]

    @property
    def hidden(self) -> Float[Tensor, "batch seq dim"]:
        """H_k."""
        self._ask("hidden")
        return self.state.hidden

    @property
    def start(self) -> Float[Tensor, "batch seq dim"]:
        """H_0 of the same tokens: what the first loop starts from (of a text, perhaps only the newest are shown)."""
        self._ask("hidden", "start")
        return self.state.context.embedded[:, -self.shape[1] :]

    @property
    def features(self) -> Float[Tensor, "batch seq features"]:
        """What the head reads here."""
        self._ask("features")
        return self._once("features", self.state.features)

    @property
    def logits(self) -> Float[Tensor, "batch seq vocab"]:
        """This exit's logits: a whole readout."""
        self._ask("logits")
        return self._once("logits", lambda: self.state.model.head(self.features))

    @property
    def gate(self) -> Float[Tensor, "batch seq"]:
        """Probability of stopping here, as the model's own gate says.

        Raises:
            ValueError: the model has no gate.
        """
        self._ask("gate")
        return self._once("gate", self._gate)

    def _gate(self) -> Tensor:
        logit = self.state.gate_logit()
        if logit is None:
            raise ValueError(
                "rule 'gate' needs a model with an exit gate, and this one has none; train one with "
                "model.exit_gate: true (--objective.placement exit-weighted), or use another rule"
            )
        return torch.sigmoid(wide(logit))

    def _ask(self, part: str, name: str | None = None) -> None:
        needs = self._needs
        # Whole readouts have the features in them.
        if needs is None or part in needs or (part == "features" and "logits" in needs):
            return
        raise ValueError(
            f"exit rule {self._rule} reads look.{name or part}, and needs={tuple(needs)!r} of its class leaves out "
            f"{part!r}: add it there, for what a look costs is counted by it"
        )

    def _once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
