"""What models of two stacks share: a low stack runs several times, then a high one; one loop is one high cycle.

H_k is the high stack's state in cycle k. What goes from cycle to cycle beside it (the low stack's state, the states of
positions that no token has) is remembered per unroll, one more state per loop, and an intervention on H_k reaches it as
it does in the module, through the next cycle.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor

from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.tracing.side_state import SideState
from loopscope.recurrence import LoopContext, LoopState

Beside = Mapping[str, Tensor]
LOW = "low stack"
"""What the low stack's state is called in audits."""


class RecordedStacks(Protocol):
    """What an adapter of two stacks records of an unroll: at least what goes on beside H_k, by name."""

    beside: SideState[Beside]


class TwoStacks(FamilyAdapter):
    """An adapter whose state has others beside it; a family says what a cycle does to all of them."""

    @abstractmethod
    def cycle(
        self, recorded: Any, hidden: Float[Tensor, "batch seq dim"], beside: Beside
    ) -> tuple[Float[Tensor, "batch seq dim"], Beside]:
        """Return H_k and what goes on beside it, of a cycle's input and what came with it."""

    def between(self, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        """Return the next cycle's input of H_k."""
        return hidden

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        recorded: RecordedStacks = self.recorded(context)
        before = self.caught_up(recorded.beside, context, loop - 1).of_input(hidden, loop)
        state, beside = self.cycle(recorded, hidden, before)
        recorded.beside.after_core(state, loop, beside)
        return state

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        side = self._side(context, loop)
        carried = self.between(hidden)
        side.after_carry(carried, loop, side.of_state(hidden, loop))
        return carried

    def rejoin(self, state: LoopState) -> None:
        self._side(state.context, state.loop).rejoin()

    def beside(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Mapping[str, Float[Tensor, "..."]]:
        return self._side(context, loop).of_state(hidden, loop)

    def put_beside(self, state: LoopState, side: Mapping[str, Float[Tensor, "..."]]) -> None:
        own = self._side(state.context, state.loop)
        own.put(state.loop, {**own.of_state(state.hidden, state.loop), **side})

    def _side(self, context: LoopContext, loop: int) -> SideState[Beside]:
        recorded: RecordedStacks = self.recorded(context)
        return self.caught_up(recorded.beside, context, loop)
