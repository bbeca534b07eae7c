"""What a declaration's fields may be: what their annotations say, checked where a class is named.

A declaration is somebody's word, and a misspelt word would be taken for another (`under` for `below`) or fail far from
where it stands. So every field is held to its annotation, by name and with what is allowed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

DOCS = "docs/extending.md"


class Undeclared:
    """Stands where a declaration must say something and does not."""

    def __repr__(self) -> str:
        return "undeclared"


UNDECLARED: Any = Undeclared()


class AbstractDeclaration:
    """What a variant declares of itself: a frozen dataclass, whose annotations say what every field takes."""

    def __new__(cls, **given: Any) -> Self:
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
                raise TypeError(f"{cls.__name__} has no field {name!r}; {hint}")
        return super().__new__(cls)

    def missing(self) -> list[str]:
        """Return the fields that must be given and are not."""
        return [name for name in self.kinds() if getattr(self, name) is UNDECLARED]

    @classmethod
    def kinds(cls) -> dict[str, Any]:
        """Return what every field takes, as a type."""
        return {field.name: field.type for field in fields(cls)}  # type: ignore[arg-type]


def check_fields(owner: str, declared: object, kinds: Mapping[str, Any]) -> None:
    """Hold what is declared to the types of its fields.

    Args:
        owner: whose declaration it is, for messages: `readout package.module:ClassName`.
        declared: what has the fields as its attributes.

    Raises:
        ValueError: the first field that does not fit: its value, and what is allowed.
    """
    for name, kind in kinds.items():
        check_value(owner, name, getattr(declared, name), kind)


def check_value(owner: str, name: str, value: Any, kind: Any, called: bool = False) -> None:
    """Hold one value to the type of its field.

    Args:
        called: it is what a function gave that was declared in the field's place.

    Raises:
        ValueError: see `check_fields`.
    """
    options = [option for option in _options(kind) if not (called and get_origin(option) is Callable)]
    if not any(_fits(value, option) for option in options):
        *before, last = [word for option in options for word in _words(option)]
        allowed = f"{', '.join(before)} or {last}" if before else last
        says = (
            f"declares a function as {name}, which gives {value!r}"
            if called
            else f"declares {name}={value!r}"
        )
        raise ValueError(f"{owner} {says}; allowed: {allowed} ({DOCS})")


def _options(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in (Union, UnionType):
        for option in get_args(kind):
            yield from _options(option)
    else:
        yield kind


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, parts[0]) for one in value)
    if origin is type:
        return isinstance(value, type) and issubclass(value, parts[0])
    if origin is Callable:
        return callable(value) and not isinstance(value, type)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    if kind is int:
        return _fits(value, float) and math.isfinite(value) and value == int(value) >= 0
    return isinstance(value, kind)


def _words(kind: Any) -> list[str]:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return [repr(word) for word in parts]
    if origin is tuple:
        return [f"a tuple of {', '.join(_words(parts[0]))}"]
    if origin is type:
        return [f"a class that inherits from {parts[0].__name__}"]
    if origin is Callable:
        return ["a function"]
    plain = {float: "a number", int: "a whole number from 0 up", str: "a text", NoneType: "None"}
    return ["True", "False"] if kind is bool else [plain[kind]]
