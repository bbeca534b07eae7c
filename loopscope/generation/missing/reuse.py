"""reuse: deeper loops see the keys and values of the deepest loop that a token ran.

Costs a copy per layer and skipped loop at the time of the exit; keeps nothing beside the cache.
"""

from loopscope.generation.missing.base import AbstractMissing, newest_columns
from loopscope.kv_cache import Slot
from loopscope.recurrence import LoopState


class Reuse(AbstractMissing):
    """Strategy `reuse`, approximate: keys of one loop answer queries of another. Nothing is computed."""

    name = "reuse"

    def on_exit(self, state: LoopState) -> None:
        kv_cache, columns = newest_columns(state)
        last = [slot for slot in self.store.slots() if slot.part == "core" and slot.loop == state.loop]
        for loop in range(state.loop + 1, self.loops + 1):
            for slot in last:
                self.store.copy(slot, Slot("core", loop, slot.layer), kv_cache.rows, columns)
        self.copy_exits(state)
