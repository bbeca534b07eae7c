"""The cache as a compiled step sees it: tensors alone, and the new tokens' place is a number in one of them.

Nothing here depends on how long the texts are, so that one graph serves every length: the new keys and values go to
`column`, and a mask says which of the columns there are they may look at.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.kv_cache import AbstractKVCache, Slot, Visible

_Made = TypeVar("_Made")


class TracedCache(AbstractKVCache):
    """One new token of every row, in the same column of all of them.

    Args:
        slots: those that there are, in the order of `keys` and `values`.
        column: of the new tokens, a tensor of one number.
        pads: columns before each row's first token.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        keys: Sequence[Float[Tensor, "rows heads columns head_dim"]],
        values: Sequence[Float[Tensor, "rows heads columns head_dim"]],
        column: Int[Tensor, "1"],
        pads: Int[Tensor, " rows"],
    ) -> None:
        self._places = {slot: place for place, slot in enumerate(slots)}
        self._keys, self._values, self._column, self._pads = keys, values, column, pads
        self.positions = column - pads[:, None]
        self.capacity = keys[0].shape[2]
        self._made: dict[str, Any] = {}

    def keep(
        self,
        slot: Slot,
        key: Float[Tensor, "rows heads 1 head_dim"],
        value: Float[Tensor, "rows heads 1 head_dim"],
    ) -> None:
        place = self._places[slot]
        self._keys[place].index_copy_(2, self._column, key)
        self._values[place].index_copy_(2, self._column, value)

    def visible(self, slot: Slot, window: int | None) -> Visible:
        place = self._places[slot]
        mask = self.once(f"mask {window}", lambda: self._mask(window))
        return Visible(self._keys[place], self._values[place], mask, causal=False)

    def _mask(self, window: int | None) -> Bool[Tensor, "rows 1 1 columns"]:
        columns = torch.arange(self.capacity, device=self._column.device)
        seen = (columns <= self._column) & (columns >= self._pads[:, None])
        if window is not None:
            seen = seen & (columns > self._column - window)
        return seen[:, None, None]

    def once(self, name: str, make: Callable[[], _Made]) -> _Made:
        if name not in self._made:
            self._made[name] = make()
        made: _Made = self._made[name]
        return made

    def narrow(self, rows: Int[Tensor, " rows"]) -> "TracedCache":
        raise AssertionError("no row leaves a compiled step before its end")
