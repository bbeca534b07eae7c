"""What the tokens before left behind: the one thing a model must read to run over new tokens alone.

A model that keeps keys and values asks its context's `kv_cache` at every attention: here are the keys and values of
the new tokens, which may they see? Where they are kept, for which rows and at which places, is the cache's business.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

Part = Literal["embed", "core", "readout"]
_Made = TypeVar("_Made")


class Slot(NamedTuple):
    """Where one attention's keys and values are kept: `layer` of a part of the model, at `loop`.

    The part is named by the method of `AbstractLoopedLM` that runs it. A prelude (`embed`) has loop 1; layers behind
    the loops (`readout`) have the loop of their exit.
    """

    part: Part
    loop: int
    layer: int


class Visible(NamedTuple):
    """What the new tokens may look at, themselves included; what `scaled_dot_product_attention` takes."""

    keys: Float[Tensor, "batch heads seen head_dim"]
    values: Float[Tensor, "batch heads seen head_dim"]
    mask: Bool[Tensor, "#batch 1 seq seen"] | None  # None: everything, or by `causal`
    causal: bool


class AbstractKVCache(ABC):
    """Keys and values of every slot, for the rows and the places of one call.

    Attributes:
        positions: of the new tokens, each in its own row's text: 0 is the first token of a row.
        capacity: tokens of the longest text that may come.
    """

    positions: Int[Tensor, "batch seq"]
    capacity: int

    @abstractmethod
    def keep(
        self,
        slot: Slot,
        key: Float[Tensor, "batch heads seq head_dim"],
        value: Float[Tensor, "batch heads seq head_dim"],
    ) -> None:
        """Keep the new tokens' keys and values in a slot."""

    @abstractmethod
    def visible(self, slot: Slot, window: int | None) -> Visible:
        """Return what the new tokens may see in a slot.

        Args:
            window: tokens that a token sees, itself included; None: all before it.
        """

    def extend(
        self,
        slot: Slot,
        key: Float[Tensor, "batch heads seq head_dim"],
        value: Float[Tensor, "batch heads seq head_dim"],
        window: int | None,
    ) -> Visible:
        """Do what `keep` and then `visible` do, in one call."""
        self.keep(slot, key, value)
        return self.visible(slot, window)

    @abstractmethod
    def once(self, name: str, make: Callable[[], _Made]) -> _Made:
        """Return what `make` returns, made once per call: for what all layers share, such as rotary angles."""

    def once_a_text(self, name: str, make: Callable[[], _Made]) -> _Made:
        """Return what `make` returns, made once for a whole text where a cache lasts so long; else once per call."""
        return self.once(name, make)

    @abstractmethod
    def narrow(self, rows: Int[Tensor, " rows"]) -> "AbstractKVCache":
        """Return this cache for some rows of the batch: the others take no part."""


class CacheRef(NamedTuple):
    """One slot of a cache: where one attention keeps its keys and values."""

    kv_cache: AbstractKVCache
    slot: Slot
