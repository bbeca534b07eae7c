"""What happens to the keys and values that a token never computed, because it left early."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from loopscope.generation.store import Store
from loopscope.generation.view import View
from loopscope.kv_cache import Slot
from loopscope.recurrence import AbstractLoopedLM, LoopState


class AbstractMissing(ABC):
    """A strategy for what a token never computed: later tokens that go deeper must find something of it there.

    Attributes:
        name: what the command line calls it.
        exact: whether what they find is what a run at full depth would have left.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = False

    def __init__(self, model: AbstractLoopedLM, store: Store, loops: int) -> None:
        self.model, self.store, self.loops = model, store, loops

    def on_loop(self, state: LoopState) -> None:  # noqa: B027 - most need nothing
        """Take note that a loop has run for the newest tokens, and nobody has left yet."""

    @abstractmethod
    def on_exit(self, state: LoopState) -> None:
        """Take note that the newest tokens of these rows left at this loop; their exit has been read."""

    def complete(self, slot: Slot, rows: Int[Tensor, " rows"] | None) -> None:  # noqa: B027 - most need nothing
        """Complete a slot: new tokens of these rows are about to look at it."""

    def select(self, rows: Int[Tensor, " rows"]) -> None:  # noqa: B027 - most need nothing
        """Keep only these rows: all others have ended."""

    def copy_exits(self, state: LoopState) -> None:
        """Give the layers behind the loops something at every exit that a token was not read at.

        It is the keys and values of the exit that it took.
        """
        kv_cache, columns = newest_columns(state)
        own = [slot for slot in kv_cache.written if slot.part == "readout" and slot.loop == state.loop]
        for loop in range(1, self.loops + 1):
            for slot in own:
                target = Slot("readout", loop, slot.layer)
                if target not in kv_cache.written:
                    self.store.copy(slot, target, kv_cache.rows, columns)


def newest_columns(state: LoopState) -> tuple[View, slice]:
    """Return the view of a state of newest tokens, and their one column."""
    kv_cache = state.context.kv_cache
    assert isinstance(kv_cache, View), "generation made it"
    assert isinstance(kv_cache.columns, slice), "newest tokens share a column"
    return kv_cache, kv_cache.columns
