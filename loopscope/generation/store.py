"""Keys and values of one generation: a transformers `Cache` with one layer per (part, loop, layer) of the model.

Texts of a batch share columns: a shorter one starts later, and what is before its start is padding. A token's column
is the same in every slot, so what is missing in a deeper loop is a place that nobody has written yet.

Memory: rows × key and value channels × capacity numbers per slot, allocated when the slot is first written: loops ×
layers slots for the shared stack, where an unlooped model of the same layers has one per layer.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from loopscope.kv_cache import Slot

Columns = slice | Tensor
"""Where the tokens of a call are: the same columns for every row, or places `[rows seq]` of each row's own."""


class PlacedLayer(CacheLayerMixin):
    """Keys and values of one slot, written at any rows and columns, because tokens reach it at different times."""

    keys: Tensor
    values: Tensor

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.capacity, self.length = rows, capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros, not whatever memory held: a masked value is multiplied by 0, and 0 × NaN is NaN.
        self.keys, self.values = (
            given.new_zeros(self.rows, given.shape[1], self.capacity, given.shape[3])
            for given in (key_states, value_states)
        )
        self.is_initialized = True

    def append(self, key: Tensor, value: Tensor, start: int, end: int) -> None:
        """Write what all rows have at the same columns: what `update` does, without what that looks at first."""
        self.keys.narrow(2, start, end - start).copy_(key)
        self.values.narrow(2, start, end - start).copy_(value)
        self.length = max(self.length, end)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write at `rows` (None: all) and `columns`; return the whole of what is kept."""
        rows, columns = args
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            if isinstance(columns, Tensor):
                which = torch.arange(len(kept), device=kept.device) if rows is None else rows
                kept[which[:, None], :, columns] = new.transpose(1, 2)
            elif rows is None:
                kept[:, :, columns] = new
            else:
                kept[rows, :, columns] = new
        last = int(columns.max()) + 1 if isinstance(columns, Tensor) else columns.stop
        self.length = max(self.length, last)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        return self.capacity

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows: the others' texts have ended."""
        self.rows = len(indices)
        if self.is_initialized:
            self.keys, self.values = self.keys[indices], self.values[indices]


class Store:
    """Keys and values of one batch, slot by slot.

    Attributes:
        pads: columns before each row's first token.
        padded: whether any row has some.
        capacity: columns there are.
        made: what is made once a text, by name (`AbstractKVCache.once_a_text`).
    """

    def __init__(self, pads: Int[Tensor, " rows"], capacity: int) -> None:
        self.pads, self.capacity = pads, capacity
        self.padded = bool(pads.any())
        self.made: dict[str, Any] = {}
        self._layer_indices: dict[Slot, int] = {}
        self.cache = self._cache()

    def _cache(self) -> Cache:
        make: Any = partial(PlacedLayer, len(self.pads), self.capacity)
        return Cache(layer_class_to_replicate=make)

    def keep(
        self,
        slot: Slot,
        key: Float[Tensor, "rows heads seq head_dim"],
        value: Float[Tensor, "rows heads seq head_dim"],
        rows: Int[Tensor, " rows"] | None,
        columns: Columns,
    ) -> None:
        """Write keys and values into a slot."""
        index = self._layer_indices.setdefault(slot, len(self._layer_indices))
        self.cache.update(key, value, index, rows, columns)

    def known_layer(self, slot: Slot) -> PlacedLayer | None:
        """Return the slot's keys and values, or None where it has not been written to."""
        index = self._layer_indices.get(slot)
        return None if index is None else self.cache.layers[index]  # type: ignore[return-value]

    def layer(self, slot: Slot) -> PlacedLayer:
        """Return the slot's keys and values; it must have been written to."""
        layer = self.cache.layers[self._layer_indices[slot]]
        assert isinstance(layer, PlacedLayer)
        return layer

    def slots(self) -> list[Slot]:
        """Return the slots that were written to, in that order."""
        return list(self._layer_indices)

    def copy(self, source: Slot, target: Slot, rows: Int[Tensor, " rows"] | None, columns: slice) -> None:
        """Write what `source` keeps of some tokens into `target`."""
        kept = self.layer(source)
        key, value = kept.keys[:, :, columns], kept.values[:, :, columns]
        if rows is not None:
            key, value = key[rows], value[rows]
        self.keep(target, key, value, rows, columns)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep only these rows, and forget all others."""
        self.pads = self.pads[rows]
        self.padded = bool(self.pads.any())
        self.cache.batch_select_indices(rows)
        self.cache.layer_class_to_replicate = self._cache().layer_class_to_replicate

    def bytes(self) -> int:
        """Return the size of all slots, in bytes."""
        layers = (self.layer(slot) for slot in self._layer_indices)
        return sum(kept.nbytes for layer in layers for kept in (layer.keys, layer.values))
