"""The cache as one call of the model sees it: some rows of a store, and the columns of the tokens that are new."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.generation.store import Columns, Store
from loopscope.kv_cache import AbstractKVCache, Slot, Visible

_Made = TypeVar("_Made")
Complete = Callable[[Slot, Int[Tensor, " rows"] | None], None]
"""Called before new tokens enter a slot: whatever earlier tokens of these rows have not computed there is due now."""


class View(AbstractKVCache):
    """A call's view of the cache.

    A token sees the columns up to its own, from its row's first token on, and within the window. Distances between
    columns are distances between positions, so windows are counted in columns. Where nothing hides anything (one new
    column, no padding) there is no mask.

    Attributes:
        rows: of the store, or None for all.
        columns: of the new tokens.
        written: slots that this call has filled.
    """

    def __init__(
        self,
        store: Store,
        columns: Columns,
        rows: Int[Tensor, " rows"] | None = None,
        complete: Complete | None = None,
        written: set[Slot] | None = None,
    ) -> None:
        self.store, self.rows, self.columns = store, rows, columns
        self.capacity = store.capacity
        self.written = set() if written is None else written
        self._complete = complete
        self._made: dict[str, Any] = {}
        self._pads = store.pads if rows is None else store.pads[rows]
        if store.padded:
            self.positions = (self.new_columns - self._pads[:, None]).clamp(min=0)
        else:
            self.positions = self.new_columns.expand(len(self._pads), -1)

    @property
    def new_columns(self) -> Int[Tensor, "rows seq"]:
        """Columns of the new tokens, row by row."""
        if isinstance(self.columns, Tensor):
            return self.columns
        return torch.arange(self.columns.start, self.columns.stop, device=self._pads.device)[None]

    def keep(
        self,
        slot: Slot,
        key: Float[Tensor, "rows heads seq head_dim"],
        value: Float[Tensor, "rows heads seq head_dim"],
    ) -> None:
        if self._complete is not None and slot.layer == 0:
            self._complete(slot, self.rows)
        self.store.keep(slot, key, value, self.rows, self.columns)
        self.written.add(slot)

    def extend(
        self,
        slot: Slot,
        key: Float[Tensor, "rows heads seq head_dim"],
        value: Float[Tensor, "rows heads seq head_dim"],
        window: int | None,
    ) -> Visible:
        columns, kept = self.columns, self.store.known_layer(slot)
        if self.rows is not None or isinstance(columns, Tensor) or kept is None or self.store.padded:
            return super().extend(slot, key, value, window)
        start, end = columns.start, columns.stop
        if end - start > 1:
            return super().extend(slot, key, value, window)
        if self._complete is not None and slot.layer == 0:
            self._complete(slot, None)
        kept.append(key, value, start, end)
        self.written.add(slot)
        first = 0 if window is None else max(0, end - window)
        seen = end - first
        return Visible(
            kept.keys.narrow(2, first, seen), kept.values.narrow(2, first, seen), None, causal=False
        )

    def visible(self, slot: Slot, window: int | None) -> Visible:
        kept = self.store.layer(slot)
        if isinstance(self.columns, Tensor):
            first, end, single = 0, self.once("end", lambda: int(self.new_columns.max()) + 1), False
        else:
            end, single = self.columns.stop, self.columns.stop - self.columns.start == 1
            first = 0 if window is None else max(0, self.columns.start - window + 1)
        keys, values = kept.keys[:, :, first:end], kept.values[:, :, first:end]
        if self.rows is not None:
            keys, values = keys[self.rows], values[self.rows]
        if not self.store.padded:
            if single:
                return Visible(keys, values, None, causal=False)
            whole = not isinstance(self.columns, Tensor) and self.columns.start == 0
            if whole and (window is None or window >= end):
                return Visible(keys, values, None, causal=True)
        mask = self.once(f"mask {first} {window}", lambda: self._mask(first, end, window))
        return Visible(keys, values, mask, causal=False)

    def _mask(self, first: int, end: int, window: int | None) -> Bool[Tensor, "#rows 1 seq seen"]:
        new = self.new_columns[:, :, None]
        old = torch.arange(first, end, device=new.device)
        visible = (old <= new) & (old >= self._pads[:, None, None])
        if window is not None:
            visible &= old > new - window
        return (visible | (old == new))[:, None]  # padding sees itself: a row of nothing would be NaN

    def once(self, name: str, make: Callable[[], _Made]) -> _Made:
        if name not in self._made:
            self._made[name] = make()
        made: _Made = self._made[name]
        return made

    def once_a_text(self, name: str, make: Callable[[], _Made]) -> _Made:
        made = self.store.made
        if name not in made:
            made[name] = make()
        found: _Made = made[name]
        return found

    def narrow(self, rows: Int[Tensor, " rows"]) -> "View":
        columns = self.columns[rows] if isinstance(self.columns, Tensor) else self.columns
        kept = rows if self.rows is None else self.rows[rows]
        return View(self.store, columns, kept, self._complete, set(self.written))
