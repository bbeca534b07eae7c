"""Bytes of tensors that live at once: one count on every machine; resident memory has what libraries keep, too."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Sums the storages that operations inside the block make, until each is freed; `most` is the most at once.

    What one operation makes for itself and frees again is not seen, and neither is what other threads make.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made if isinstance(made, tuple | list) else (made,)):
            if id(storage) not in self._known:
                given = any(storage is other for other in _storages(args))  # a view of what was there before
                self._count(storage, 0 if given else storage.nbytes())
        return made

    def _count(self, storage: UntypedStorage, size: int) -> None:
        self._known.add(id(storage))
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, id(storage), size)

    def _freed(self, number: int, size: int) -> None:
        self._known.discard(number)
        self.now -= size


def _storages(values: Iterable[Any]) -> Iterator[UntypedStorage]:
    for value in values:
        if isinstance(value, Tensor):
            yield value.untyped_storage()
        elif isinstance(value, tuple | list):
            yield from _storages(value)
