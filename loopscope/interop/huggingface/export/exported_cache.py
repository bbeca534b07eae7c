"""What tokens see in one call of an exported model: those of the call, and those that a cache of transformers holds.

Every layer that runs once has one slot of the cache, every shared layer one for each loop: prelude, coda, then loop by
loop, so that a run of another depth has its slots where the trained depth has them. Slots that a deeper run needs are
added while the cache is empty. One that was filled at another depth is refused: its slots hold other states.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loopscope.kv_cache import AbstractKVCache, Slot, Visible


class CallCache(AbstractKVCache):
    """Keys and values of one forward pass, beside those that `cache` has of the tokens before.

    Attributes:
        cache: of transformers, or None: then the call's own tokens are all there are.
    """

    def __init__(
        self,
        looped: Any,
        loops: int,
        cache: Any,
        shape: tuple[int, int],
        device: torch.device,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> None:
        """
        Args:
            looped: the model's settings.
            shape: batch and number of new tokens.
            attention_mask: [batch, tokens before and new], 0 at padding; or [batch, 1, new, all], what each sees.
            position_ids: [batch or 1, new]; None: by the mask, or after the tokens before.

        Raises:
            ValueError: a mask of another length, or a cache that was filled at another depth.
        """
        self.looped, self.loops, self.cache = looped, loops, cache
        self.batch, self.seq = shape
        self.past = 0 if cache is None else _make_room(cache, looped, loops)
        self.capacity = self.past + self.seq
        self.own_mask = attention_mask if attention_mask is not None and attention_mask.ndim == 4 else None
        tokens = attention_mask if attention_mask is not None and self.own_mask is None else None
        self.tokens = None if tokens is None else self._checked(tokens)
        self.documents = self._packed(position_ids) if attention_mask is None and self.past == 0 else None
        self.positions = self._positions(position_ids, device)
        self._kept: dict[Slot, tuple[Tensor, Tensor]] = {}
        self._made: dict[Any, Any] = {}

    def keep(self, slot: Slot, key: Tensor, value: Tensor) -> None:
        if self.cache is not None:
            key, value = self.cache.update(key, value, slot_index(self.looped, slot))
        self._kept[slot] = key, value

    def visible(self, slot: Slot, window: int | None) -> Visible:
        keys, values = self._kept.pop(slot)
        length = keys.shape[2]
        if self._sees_all(length, window):
            return Visible(keys, values, None, causal=self.seq > 1)
        mask = self.once(
            f"mask {length} {window} {keys.device}", lambda: self._mask(length, window, keys.device)
        )
        return Visible(keys, values, mask, causal=False)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def narrow(self, rows: Tensor) -> "CallCache":
        raise NotImplementedError("rows of a call to an exported model stay together")

    def _sees_all(self, length: int, window: int | None) -> bool:
        """Whether no mask is needed: new tokens at the start of their texts, or one token after all others."""
        if self.tokens is not None or self.own_mask is not None or self.documents is not None:
            return False
        if window is not None and window < length:
            return False
        whole = self.cache is None or length == self.seq
        return whole or (self.seq == 1 and length == self.capacity)

    def _mask(self, length: int, window: int | None, device: torch.device) -> Tensor:
        """Return [batch or 1, 1, new, length]: True where a new token sees another."""
        place = torch.arange(self.seq, device=device)[:, None] + self.past  # of each new token among all
        column = torch.arange(length, device=device)[None]
        seen = column <= place
        if window is not None:
            seen = seen & (column > place - window)
        seen = seen[None, None]
        if self.own_mask is not None:
            given = self.own_mask[..., :length].to(device)
            return seen & (given if given.dtype == torch.bool else given >= 0)
        if self.documents is not None:
            documents = self.documents.to(device)
            return seen & (documents[:, None, :, None] == documents[:, None, None, :])
        if self.tokens is not None:
            tokens = torch.nn.functional.pad(
                self.tokens, (0, max(0, length - self.tokens.shape[1])), value=True
            )
            # A place of padding sees itself, so that no softmax is empty.
            seen = seen & (tokens[:, None, None, :length].to(device) | (column == place))
        return seen

    def _checked(self, mask: Tensor) -> Tensor | None:
        if mask.shape[0] != self.batch or mask.shape[1] < self.capacity:
            raise ValueError(
                f"attention_mask has shape {list(mask.shape)}; give [{self.batch}, {self.capacity}]: a "
                "column for each of the tokens, those in the cache included"
            )
        tokens = mask.bool()
        return None if bool(tokens.all()) else tokens

    def _packed(self, position_ids: Tensor | None) -> Tensor | None:
        """Return which text each token is of, where positions start anew in a row; None where they do not."""
        if position_ids is None:
            return None
        starts = position_ids.diff(dim=-1) != 1
        if not bool(starts.any()):
            return None
        return torch.nn.functional.pad(starts.long().cumsum(-1), (1, 0))

    def _positions(self, position_ids: Tensor | None, device: torch.device) -> Tensor:
        if position_ids is not None:
            return position_ids.expand(self.batch, self.seq)
        if self.tokens is not None:
            before = self.tokens[:, : self.capacity].long().cumsum(-1) - 1
            return before.clamp(min=0)[:, -self.seq :]
        return (torch.arange(self.seq, device=device) + self.past).expand(self.batch, self.seq)


def slot_index(looped: Any, slot: Slot) -> int:
    """Return the place of a slot in a cache of transformers."""
    match slot.part:
        case "embed":
            return slot.layer
        case "readout":
            return int(looped.prelude) + slot.layer
    return int(looped.prelude + looped.coda + (slot.loop - 1) * looped.layers) + slot.layer


def _make_room(cache: Any, looped: Any, loops: int) -> int:
    """Return how many tokens a cache holds, and see to it that it has a slot for every layer and loop."""
    past = int(cache.get_seq_length())  # a static cache gives a tensor, which it counts up in place
    if past == 0:
        slots = looped.prelude + looped.coda + looped.layers * loops
        if len(cache.layers):  # a cache made without a config grows by itself
            cache.layers += [copy.deepcopy(cache.layers[0]) for _ in range(slots - len(cache.layers))]
            del cache.layers[slots:]  # empty ones cannot be cropped in transformers 5.16
        cache.filled_at = loops
    elif getattr(cache, "filled_at", loops) != loops:
        raise ValueError(
            f"num_loops is {loops}, and the cache was filled at {cache.filled_at}: its slots hold other loops' "
            f"states. Go on with num_loops={cache.filled_at}, or start with a new cache"
        )
    return past
