"""The hidden state among what a module is called with, and in what it returns: found, and exchanged."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from torch import Tensor

ArgumentSlot = int | str
"""Where a call's hidden state is: a position, or a keyword."""


def called_state(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[ArgumentSlot, Tensor] | None:
    """Return the hidden state of a call, the first float tensor with three axes, and where it is; None without one."""
    values: list[tuple[ArgumentSlot, Any]] = [*enumerate(args), *kwargs.items()]
    for slot, value in values:
        if _is_state(value):
            return slot, value
    return None


def with_called_state(
    args: Sequence[Any], kwargs: Mapping[str, Any], slot: ArgumentSlot, state: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with another hidden state."""
    if isinstance(slot, str):
        return tuple(args), {**kwargs, slot: state}
    return (*args[:slot], state, *args[slot + 1 :]), dict(kwargs)


def returned_state(output: Any) -> Tensor | None:
    """Return the hidden state in what a module returned: the tensor, or the first with three axes of several."""
    return next((value for _, value in _parts(output) if _is_state(value)), None)


def with_returned_state(output: Any, state: Tensor) -> Any:
    """Return what a module returned, of the structure it had, with another hidden state in it."""
    if isinstance(output, Tensor):
        return state
    key = next(key for key, value in _parts(output) if _is_state(value))
    if isinstance(output, Mapping):  # also the output classes of transformers
        changed: Any = copy(output)
        changed[key] = state
        return changed
    items = [state if place == key else value for place, value in enumerate(output)]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


def _parts(output: Any) -> list[tuple[Any, Any]]:
    if isinstance(output, Mapping):
        return list(output.items())
    return list(enumerate(output if isinstance(output, tuple | list) else (output,)))


def _is_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 3
