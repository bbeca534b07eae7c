"""Remedies, tried on the spot: what would close a blind spot, measured on the model as it is.

Each changes what the loss sees or what is carried, without training, and is measured like the model itself.
The cost in cross-entropy is what the change does today: a model trained for one readout pays for another at
first, and a penalty pays nothing until training follows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.audit.carry import carries
from loopscope.audit.interventions import exit_losses
from loopscope.audit.verdict import Status, loop_verdicts, model_verdict
from loopscope.audit.visibility import visibility
from loopscope.objectives.objective import Objective
from loopscope.objectives.penalties import NormPenalty
from loopscope.recurrence import AbstractLoopedLM, LoopContext

PENALTY = 0.01
"""Weight of the penalty that is tried: the published one."""


@dataclass(frozen=True)
class Remedy:
    """One change, and the verdict with it."""

    change: str
    verdict: Status
    cross_entropy: float  # of the last exit with the change, nats per token, no training
    cost: float  # that less the model's own


class Wrapped(AbstractLoopedLM):
    """A model with some of its five parts left to a subclass."""

    def __init__(self, model: AbstractLoopedLM) -> None:
        super().__init__()
        self.inner = model
        self.loops = model.loops

    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        return self.inner.embed(input_ids)

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.inner.core(hidden, loop, context)

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.inner.carry(hidden, loop, context)

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.inner.readout(hidden, loop, context)

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        return self.inner.head(features)

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return self.inner.exit_gate(hidden, loop, context)


class NormBetweenLoops(Wrapped):
    """With an RMSNorm (no gain) after whatever is done between loops."""

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return F.rms_norm(self.inner.carry(hidden, loop, context), hidden.shape[-1:], eps=1e-6)


class RawBeforeLast(Wrapped):
    """With the raw state as readout at every loop but the last: final-only."""

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.inner.readout(hidden, loop, context) if loop == context.loops else hidden


def try_remedies(
    model: AbstractLoopedLM,
    objective: Objective,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
) -> list[Remedy]:
    """Measure the verdict and the cost of each change."""
    penalised = Objective(
        objective.placement, [*objective.penalties, NormPenalty(PENALTY)], objective.token_loss
    )
    candidates: Sequence[tuple[str, AbstractLoopedLM, Objective]] = (
        (f"add a norm penalty of weight {PENALTY}", model, penalised),
        ("read the raw state at every loop but the last (final-only)", RawBeforeLast(model), objective),
        ("put an RMSNorm between loops", NormBetweenLoops(model), objective),
    )
    before = exit_losses(model, input_ids, labels)[-1]
    found = []
    for change, changed, judged in candidates:
        verdicts = loop_verdicts(
            visibility(changed, judged, input_ids, labels), carries(changed, input_ids, model.loops)
        )
        after = exit_losses(changed, input_ids, labels)[-1]
        found.append(Remedy(change, model_verdict(verdicts), after, after - before))
    return found
