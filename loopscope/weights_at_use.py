"""Something else in place of a model's parameters, made for the one operation that uses one and freed after it.

What a parameter is in another type, or rounded, need not be there for all of them at once: a mode sees every operation
of torch, and exchanges the parameters among its arguments.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DTYPE = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]
_ASIDE = {getattr(torch.Tensor, name).__get__ for name in ("T", "mT", "H", "mH", "real")}
"""Attributes that are a parameter's numbers in another order; all others, `data` too, are of the stored parameter."""
_PARTS = {torch.Tensor.__getitem__, nn.functional.embedding, torch.select, torch.Tensor.select}
"""What takes a part of a parameter: that part alone is exchanged."""
_ABOUT = {
    "__get__",
    "__set__",
    "__delete__",
    "__hash__",
    "__len__",
    "untyped_storage",
    "data_ptr",
    "size",
    "stride",
}
_ABOUT |= {"dim", "numel", "is_contiguous", "storage_offset"}
"""Functions that read no number of a parameter. Names that end in `_` change the stored one."""


def is_floating(parameter: Tensor) -> bool:
    """Return whether a tensor is of floating-point numbers, asked of itself and not of what takes its place."""
    with torch._C.DisableTorchFunction():
        return bool(parameter.is_floating_point())


def stored(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's own numbers, whatever would take its place."""
    with torch._C.DisableTorchFunction():
        return parameter.detach()


def _is_elsewhere(parameter: Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        return parameter.is_meta


class WeightsAtUse(TorchFunctionMode):
    """Hands every operation something else in place of the parameters among its arguments; a subclass says what."""

    dtype = torch.float32
    """What a parameter says that it is."""

    def concerns(self, parameter: nn.Parameter) -> bool:
        """Return whether something else takes this parameter's place."""
        raise NotImplementedError

    def whole(self, parameter: nn.Parameter) -> Tensor:
        """Return what takes a parameter's place."""
        raise NotImplementedError

    def of_part(self, result: Tensor) -> Tensor | None:
        """Return what takes the place of a part of a parameter (rows of an embedding); None: a part of `whole`."""
        return None

    def _found(self, values: Any) -> bool:
        if isinstance(values, nn.Parameter):
            return self.concerns(values)
        return isinstance(values, tuple | list) and any(self._found(value) for value in values)

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, nn.Parameter) and self.concerns(value):
            return self.whole(value)
        if type(value) in (tuple, list):
            return type(value)(self._replaced(each) for each in value)
        return value

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._found(args) and not self._found(tuple(kwargs.values())):
            return func(*args, **kwargs)
        if func == _DTYPE:  # of one that is elsewhere whoever brings it asks, to bring what it is
            return func(*args) if _is_elsewhere(args[0]) else self.dtype
        if func == torch.Tensor.to and not _changes_type(args[1:], kwargs):
            moved = func(*args, **kwargs)
            # Whoever brings a weight and puts it away again keeps it (accelerate).
            if moved is args[0] or moved.is_meta:
                return moved
        name = getattr(func, "__name__", "")
        changes = name.endswith("_") and not name.startswith("__")
        if (name in _ABOUT and func not in _ASIDE) or changes:
            return func(*args, **kwargs)
        if func in _PARTS:
            result = func(*args, **kwargs)
            part = (
                self.of_part(result) if isinstance(result, Tensor) and result.is_floating_point() else result
            )
            if part is not None:
                return part
        replaced = {name: self._replaced(value) for name, value in kwargs.items()}
        return func(*self._replaced(args), **replaced)


def _changes_type(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether what `Tensor.to` was called with names a type, not a device alone."""
    return any(isinstance(each, torch.dtype | Tensor) for each in (*args, *kwargs.values()))
