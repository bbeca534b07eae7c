"""A state that is put in the place of another: where, and what it has to fit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Place = Literal["before", "attention", "middle", "feed_forward", "after"]
"""Of a layer's states, one: see `LayerStates`."""
STATE_PLACES: tuple[Place, ...] = get_args(Place)
"""Places in a layer whose state can be replaced."""


@dataclass(frozen=True)
class StateKind:
    """What a state is: its shape, type and device."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def check(self, value: object, where: str) -> Tensor:
        """Return the value, if it is a tensor that may stand there; else raise ValueError."""
        if not isinstance(value, Tensor):
            raise ValueError(
                f"with_ is a {type(value).__name__}; give a tensor of shape {self.shape} and {self.dtype}, or a "
                "function that makes one of the state that is there"
            )
        if tuple(value.shape) != self.shape:
            raise ValueError(
                f"with_ has shape {tuple(value.shape)}; the state {where} has shape {self.shape}, [batch, seq, dim]"
            )
        if value.dtype != self.dtype:
            raise ValueError(
                f"with_ is {value.dtype}; the state {where} is {self.dtype}: convert it, with_.to({self.dtype})"
            )
        if value.device != self.device:
            raise ValueError(f"with_ is on {value.device}; the state {where} is on {self.device}: move it")
        return value


@dataclass(frozen=True)
class Patch:
    """A state to put in the place of another.

    Attributes:
        loop: from 1.
        layer: from 0; None: the loop's H_k, after all of its layers.
        at: which of the layer's states.
        value: the state, or what makes it of the one that is there.
        kind: what the state there is.
    """

    loop: int
    layer: int | None
    at: Place
    value: Tensor | Callable[[Tensor], Tensor]
    kind: StateKind

    @property
    def where(self) -> str:
        """The place in words."""
        return place_text(self.loop, self.layer, self.at)

    def of(self, state: Tensor) -> Tensor:
        """Return what stands in the place of this state.

        Raises:
            ValueError: a function made something that does not fit.
        """
        if isinstance(self.value, Tensor):
            return self.value
        return self.kind.check(self.value(state.clone()), self.where)


def place_text(loop: int, layer: int | None, at: Place) -> str:
    """Return a place in words."""
    return f"at loop {loop}" if layer is None else f"{at!r} of layer {layer} at loop {loop}"
