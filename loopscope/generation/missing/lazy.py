"""lazy: what is missing is computed when a later token first needs it, all of a row's tokens at once. Exact.

When a token reaches loop k, every earlier token of its row that stopped at k - 1 runs loop k first, in one call. A row
whose tokens all leave early never pays. Layers behind the loops are caught up the same way, exit by exit.

Memory beside the cache: of every token, H of the loop it stopped at, its embedding and its id; with layers behind the
loops, H of every loop. Allocated per loop, at rows × capacity × dim.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.generation.missing.base import AbstractMissing, newest_columns
from loopscope.generation.store import Store
from loopscope.generation.view import View
from loopscope.kv_cache import Slot
from loopscope.recurrence import AbstractLoopedLM, LoopContext, LoopState, unroll_from

Waiting = list[dict[int, list[int]]]
"""Row by row: loop -> columns."""


class Lazy(AbstractMissing):
    """Strategy `lazy`, exact: a deeper loop finds what a run at full depth would have left."""

    name = "lazy"
    exact = True

    def __init__(self, model: AbstractLoopedLM, store: Store, loops: int) -> None:
        super().__init__(model, store, loops)
        self._reads = "readout" in model.remembers
        self._stopped: Waiting = [{} for _ in store.pads]  # loop they stopped at -> columns
        self._unread: Waiting = [{} for _ in store.pads]  # exit they were not read at -> columns
        self._states: dict[int, Tensor] = {}  # loop -> H of some tokens [rows capacity dim]
        self._embedded: Tensor | None = None
        self._ids: Tensor | None = None

    def on_loop(self, state: LoopState) -> None:
        if self._reads:
            kv_cache, columns = newest_columns(state)
            self._keep(state, kv_cache.rows, columns.start)

    def on_exit(self, state: LoopState) -> None:
        kv_cache, columns = newest_columns(state)
        rows, column = kv_cache.rows, columns.start
        early = state.loop < self.loops
        numbers = range(len(self.store.pads)) if rows is None else rows.tolist()
        if early or self._reads:
            self._keep(state, rows, column)
            context = state.context
            self._embedded = self._write(self._embedded, context.embedded[:, 0], rows, column)
            self._ids = self._write(self._ids, context.input_ids[:, 0], rows, column)
        for row in numbers:
            if early:
                self._stopped[row].setdefault(state.loop, []).append(column)
            for loop in range(1, self.loops + 1) if self._reads else ():
                if Slot("readout", loop, 0) not in kv_cache.written:
                    self._unread[row].setdefault(loop, []).append(column)

    def complete(self, slot: Slot, rows: Int[Tensor, " rows"] | None) -> None:
        if slot.part == "core":
            self._run(slot.loop, rows)
        elif slot.part == "readout":
            self._read(slot.loop, rows)

    def _run(self, loop: int, rows: Tensor | None) -> None:
        """Take the tokens that stopped one loop before through `loop`."""
        group = self._due(self._stopped, loop - 1, rows)
        if group is None:
            return
        which, columns = group
        before = LoopState(
            loop - 1, self._of(loop - 1, which, columns), self.model, self._context(which, columns)
        )
        after = next(unroll_from(before, before.hidden))
        if loop < self.loops or self._reads:
            kept = self._buffer(loop, after.hidden)
            kept[which[:, None], columns] = after.hidden
        for row in which.tolist():
            moved = self._stopped[row].pop(loop - 1)
            if loop < self.loops:
                self._stopped[row].setdefault(loop, []).extend(moved)

    def _read(self, loop: int, rows: Tensor | None) -> None:
        """Take the tokens that were not read at this exit through the layers behind it."""
        group = self._due(self._unread, loop, rows)
        if group is None:
            return
        which, columns = group
        self.model.readout(self._of(loop, which, columns), loop, self._context(which, columns))
        for row in which.tolist():
            del self._unread[row][loop]

    def _due(
        self, waiting: Waiting, loop: int, rows: Tensor | None
    ) -> tuple[Int[Tensor, " rows"], Int[Tensor, "rows seq"]] | None:
        """Rows with tokens waiting at a loop, and those tokens' columns. Shorter lists repeat their last column."""
        numbers: Sequence[int] = range(len(waiting)) if rows is None else rows.tolist()
        waiting_columns = {row: waiting[row][loop] for row in numbers if waiting[row].get(loop)}
        if not waiting_columns:
            return None
        longest = max(map(len, waiting_columns.values()))
        columns = [list_ + [list_[-1]] * (longest - len(list_)) for list_ in waiting_columns.values()]
        device = self.store.pads.device
        return torch.tensor(list(waiting_columns), device=device), torch.tensor(columns, device=device)

    def _context(self, rows: Tensor, columns: Tensor) -> LoopContext:
        kv_cache = View(self.store, columns, rows)
        assert self._ids is not None, "kept when tokens left"
        assert self._embedded is not None, "kept when tokens left"
        at = (rows[:, None], columns)
        return LoopContext(self._ids[at], self._embedded[at], self.loops, kv_cache)

    def _of(self, loop: int, rows: Tensor, columns: Tensor) -> Float[Tensor, "rows seq dim"]:
        return self._states[loop][rows[:, None], columns]

    def _keep(self, state: LoopState, rows: Tensor | None, column: int) -> None:
        self._states[state.loop] = self._write(self._states.get(state.loop), state.hidden[:, 0], rows, column)

    def _buffer(self, loop: int, like: Tensor) -> Tensor:
        if loop not in self._states:
            self._states[loop] = like.new_zeros(len(self.store.pads), self.store.capacity, like.shape[-1])
        return self._states[loop]

    def _write(self, kept: Tensor | None, new: Tensor, rows: Tensor | None, column: int) -> Tensor:
        if kept is None:
            kept = new.new_zeros(len(self.store.pads), self.store.capacity, *new.shape[1:])
        kept[slice(None) if rows is None else rows, column] = new
        return kept

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        numbers = rows.tolist()
        self._stopped = [self._stopped[row] for row in numbers]
        self._unread = [self._unread[row] for row in numbers]
        self._states = {loop: kept[rows] for loop, kept in self._states.items()}
        self._embedded = None if self._embedded is None else self._embedded[rows]
        self._ids = None if self._ids is None else self._ids[rows]
