"""Setting how many loops a module's own forward runs, for a while."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from loopscope.interop.foreign.tracing.forward_runs import accepts
from loopscope.interop.foreign.tracing.module_paths import find

SetLoops = str | Sequence[str] | Callable[[int], Mapping[str, Any] | None]


class LoopCount:
    """The way to set a forward's number of loops: a keyword of it, attributes, or a function of the number.

    A name without a dot that is neither is looked for in the module's parts, their configs and sub-configs.

    A function returns forward arguments, or None where it has set something itself.
    """

    def __init__(self, module: nn.Module, how: SetLoops | None) -> None:
        self.how = how
        self.trained: int | None = None  # set once it is known; a function is called with it afterwards
        self.owners: list[tuple[Any, str]] = []
        self.keywords: list[str] = []
        for name in [how] if isinstance(how, str) else [] if how is None or callable(how) else how:
            if accepts(module, name):
                self.keywords.append(name)
                continue
            if "." not in name and not hasattr(module, name) and (holders := _holders(module, name)):
                self.owners += [(holder, name) for holder in holders]
                continue
            find(module, name, "set_loops")
            owner, _, last = name.rpartition(".")
            self.owners.append((find(module, owner, "set_loops") if owner else module, last))
        for owner, last in self.owners:
            if not isinstance(getattr(owner, last), int):
                raise ValueError(
                    f"set_loops names {last!r}, which is {type(getattr(owner, last)).__name__}; it must be the "
                    "attribute that holds the number of loops, a keyword of the forward "
                    f"({', '.join(inspect.signature(module.forward).parameters)}), or a function of the number"
                )

    def __bool__(self) -> bool:
        return self.how is not None

    @contextmanager
    def at(self, loops: int | None) -> Iterator[Mapping[str, Any]]:
        """Yield forward arguments for this many loops; attributes are set meanwhile, and put back. None: as it is."""
        if loops is None or self.how is None:
            yield {}
            return
        before = [getattr(owner, last) for owner, last in self.owners]
        given: Mapping[str, Any] | None = {}
        try:
            for owner, last in self.owners:
                setattr(owner, last, loops)
            if callable(self.how) and not isinstance(self.how, str):
                given = self.how(loops)
            yield {**dict.fromkeys(self.keywords, loops), **(given or {})}
        finally:
            for (owner, last), value in zip(self.owners, before, strict=True):
                setattr(owner, last, value)
            if given is None and self.trained is not None:  # the function set something itself
                assert callable(self.how)
                self.how(self.trained)


def _holders(module: nn.Module, name: str) -> list[Any]:
    """Return the parts of a module, their configs and sub-configs that hold a whole number of this name."""
    return [holder for holder, numbers in whole_numbers(module) if name in numbers]


def whole_numbers(module: nn.Module) -> Iterator[tuple[Any, dict[str, int]]]:
    """Yield every part of a module, every config and sub-config of one, once each, with the whole numbers in it."""
    seen: set[int] = set()
    for part in module.modules():
        left: list[Any] = [part, getattr(part, "config", None)]
        while left:
            holder = left.pop(0)
            if holder is None or id(holder) in seen:
                continue
            seen.add(id(holder))
            values = getattr(holder, "__dict__", {})
            yield holder, {name: value for name, value in values.items() if type(value) is int}
            if holder is not part:
                left += [value for name, value in values.items() if name.endswith("config")]
