"""A looped model with some of its five parts changed: how remedies are tried on a model as it is."""

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.recurrence import AbstractLoopedLM, LoopContext, LoopState


class PatchedModel(AbstractLoopedLM):
    """A looped model made of another one's five parts; a subclass changes some. Holds the model itself, not a copy."""

    def __init__(self, model: AbstractLoopedLM) -> None:
        super().__init__()
        self.inner = model
        self.loops = model.loops
        self.readout_name = model.readout_name
        self.depth_conditioned = model.depth_conditioned

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

    @property
    def stateless(self) -> bool:
        return self.inner.stateless

    def rejoin(self, state: LoopState) -> None:
        self.inner.rejoin(state)

    def beside(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Mapping[str, Float[Tensor, "..."]]:
        return self.inner.beside(hidden, loop, context)

    def put_beside(self, state: LoopState, side: Mapping[str, Float[Tensor, "..."]]) -> None:
        self.inner.put_beside(state, side)

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return self.inner.exit_gate(hidden, loop, context)

    def gate_alone(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return self.inner.gate_alone(hidden, loop, context)


class NormBetweenLoops(PatchedModel):
    """A looped model with an RMSNorm (no gain) after whatever it does between loops."""

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return F.rms_norm(self.inner.carry(hidden, loop, context), hidden.shape[-1:], eps=1e-6)


class RawBeforeLast(PatchedModel):
    """A looped model whose readout is the raw state at every loop but the last: final-only."""

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.inner.readout(hidden, loop, context) if loop == context.loops else hidden


class RawEveryLoop(PatchedModel):
    """A looped model whose readout is the raw state at every loop."""

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden
