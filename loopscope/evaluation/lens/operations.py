"""The operations of a piece of a forward, counted: which one made a tensor, and another result in its place.

Only those whose result looks like a hidden state count: what else is asked of tensors on the way, a shape by a check
that runs now and then, changes no place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

ModuleForward = Callable[..., Any]

_uncounted: ContextVar[bool] = ContextVar("uncounted", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """Leave out what is done inside: it is no part of the forward."""
    before = _uncounted.set(True)
    try:
        yield
    finally:
        _uncounted.reset(before)


class CountedOperations(TorchFunctionMode):
    """Counts the calls of torch inside, each by its place from 0, and knows which one made a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._made: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _counts(result):
            self._made[id(result)] = self.count
            self.count += 1
        return result

    def that_made(self, tensor: Tensor) -> int | None:
        """Return the place of the last operation whose result is this tensor, which is alive; None if it was none."""
        return self._made.get(id(tensor))


class ExchangedResult(TorchFunctionMode):
    """Puts another tensor in the place of one operation's result."""

    def __init__(self, place: int, exchange: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.place, self.exchange = place, exchange
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _counts(result):
            return result
        here, self.count = self.count, self.count + 1
        return self.exchange(result) if here == self.place else result


def _counts(result: Any) -> bool:
    return (
        not _uncounted.get()
        and isinstance(result, Tensor)
        and result.ndim == 3
        and result.is_floating_point()
    )
