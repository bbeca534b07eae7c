"""What goes from loop to loop beside H_k: kept with the states that it belongs to, in one unroll.

Some modules carry more than one state (HRM-Text's low stack, memory tokens, the history of a forward that is
followed). An audit calls core and carry in its own order, with states of its own: the unroll's, scaled ones, and
runs that go on from them. The rule: a state that core or carry just returned keeps what belongs to it; one of the
unroll's own states has what it had there; a changed one has what the loop that just ran had, and, where a run goes
on from a state of the unroll (`rejoin`), what the unroll had at that loop.
"""

from typing import Generic, TypeVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor

Extra = TypeVar("Extra")


class SideState(Generic[Extra]):
    """What one unroll carries beside H_k. Memory: what every loop had, for as long as the unroll's context lives."""

    def __init__(self, start: Extra) -> None:
        self._own: dict[int, tuple[ReferenceType[Tensor] | None, Extra]] = {0: (None, start)}
        self._ran: tuple[Tensor | None, int, Extra] | None = None
        self._carried: tuple[Tensor, int, Extra] | None = None

    def after_core(self, hidden: Tensor, loop: int, extra: Extra) -> None:
        """Keep what goes with a state that core returned at `loop`."""
        if torch._C._functorch.is_functorch_wrapped_tensor(hidden):
            return  # inside a forward-mode derivative: these tensors die with it
        self._ran = (hidden, loop, extra)
        self._own.setdefault(loop, (ref(hidden), extra))

    def after_carry(self, carried: Tensor, loop: int, extra: Extra) -> None:
        """Keep what goes with an input that carry returned after `loop`."""
        self._carried = (carried, loop, extra)

    def rejoin(self) -> None:
        """Forget what ran last: another run goes on from one of the unroll's own states."""
        self._ran = self._carried = None

    def put(self, loop: int, extra: Extra) -> None:
        """Let a changed state of `loop`, whatever it is, have this: another run goes on from it."""
        self._ran, self._carried = (None, loop, extra), None

    def knows(self, loop: int) -> bool:
        """Return whether a loop of this unroll ran here."""
        return loop in self._own

    def of_state(self, hidden: Tensor, loop: int) -> Extra:
        """Return what belongs to a state H_k of `loop`."""
        reference, own = self._own[loop]
        if reference is not None and reference() is hidden:
            return own
        if self._ran is not None and self._ran[1] == loop:
            return self._ran[2]
        return own

    def of_input(self, hidden: Tensor, loop: int) -> Extra:
        """Return what belongs to an input of `loop`."""
        if self._carried is not None and self._carried[1] == loop - 1:
            return self._carried[2]
        return self.of_state(hidden, loop - 1)
