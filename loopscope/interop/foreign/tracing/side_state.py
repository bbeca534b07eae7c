"""What goes from loop to loop beside H_k: kept with the states that it belongs to, in one unroll.

Some modules carry more than one state (HRM-Text's low stack, memory tokens, the history of a forward that is
followed). An audit calls core and carry in its own order, with states of its own: the unroll's, scaled ones, and
runs that go on from them. The rule: a state that core or carry just returned keeps what belongs to it; one of the
unroll's own states has what it had there; a changed one has what the loop that just ran had, and, where a run goes
on from a state of the unroll (`rejoin`), what the unroll had at that loop.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor

Extra = TypeVar("Extra")


@dataclass
class _Own(Generic[Extra]):
    """What an unroll had beside one of its own states: the state, if it still is, and what belongs to it."""

    state: ReferenceType[Tensor] | None
    extra: Extra

    @property
    def gone(self) -> bool:
        """Whether nobody holds the state any more."""
        return self.state is not None and self.state() is None


class SideState(Generic[Extra]):
    """What one unroll carries beside H_k.

    Memory: what the last loop had, and what those loops had whose H_k somebody still holds; where a gradient is
    recorded, what every loop had. What was forgotten is run again from the start by the model that asks (`knows`).
    """

    def __init__(self, start: Extra) -> None:
        self._own: dict[int, _Own[Extra]] = {0: _Own(None, start)}
        self._ran: tuple[Tensor | None, int, Extra] | None = None
        self._carried: tuple[Tensor, int, Extra] | None = None

    def after_core(self, hidden: Tensor, loop: int, extra: Extra, without: Extra | None = None) -> None:
        """Keep what goes with a state that core returned at `loop`.

        Args:
            without: what is kept for as long as somebody holds the state, where `extra` would hold it itself.
        """
        if torch._C._functorch.is_functorch_wrapped_tensor(hidden):
            return  # inside a forward-mode derivative: these tensors die with it
        self._ran = (hidden, loop, extra)
        own = self._own.get(loop)
        if own is None or (own.gone and not torch.is_grad_enabled()):
            self._own[loop] = _Own(ref(hidden), extra if without is None else without)
        self._forget()

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
        """Return whether a loop of this unroll ran here and is not forgotten."""
        self._forget()
        return loop in self._own

    def of_state(self, hidden: Tensor, loop: int) -> Extra:
        """Return what belongs to a state H_k of `loop`."""
        own = self._own[loop]
        if own.state is not None and own.state() is hidden:
            return own.extra
        if self._ran is not None and self._ran[1] == loop:
            return self._ran[2]
        return own.extra

    def of_input(self, hidden: Tensor, loop: int) -> Extra:
        """Return what belongs to an input of `loop`."""
        if self._carried is not None and self._carried[1] == loop - 1:
            return self._carried[2]
        return self.of_state(hidden, loop - 1)

    def held(self, loop: int) -> Tensor | None:
        """Return the unroll's own H_k, if somebody holds it."""
        state = self._own[loop].state
        return None if state is None else state()

    def _forget(self) -> None:
        """Drop what belongs to states before the last that are gone: nobody can go back to them."""
        if torch.is_grad_enabled():
            return
        last = max(self._own)
        for loop in [loop for loop in self._own if 0 < loop < last]:
            if self._own[loop].gone:
                del self._own[loop]
