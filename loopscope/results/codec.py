"""Records to JSON and back, driven by their annotations.

JSON has no NaN or infinity: both are written as null, and null is read back as NaN where a number is meant.
Keys that this version does not know are left out on reading.
"""

import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
_Decoder = Callable[[Any], Any]


def to_json(record: Any) -> str:
    """Serialise a record, or plain values that hold numbers which are not finite."""
    values = asdict(record) if is_dataclass(record) and not isinstance(record, type) else record
    return json.dumps(finite(values), indent=1, allow_nan=False)


def finite(value: Any) -> Any:
    """Return plain values with null for every number that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def decode(kind: type[Record], value: Any) -> Record:
    """Return a record of class `kind` from its JSON object.

    Raises:
        KeyError, TypeError, ValueError: a key is missing, or a value is of another type.
    """
    annotation: Any = kind
    decoded: Record = _decoder(annotation)(value)
    return decoded


def json_object(text: str) -> dict[str, Any]:
    """Return the object in a JSON text, or raise ValueError."""
    try:
        data = json.loads(text)
    except RecursionError:  # no ValueError, where every other damage of a JSON text is one
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {type(data).__name__}")
    return data


@cache
def _decoder(kind: Any) -> _Decoder:
    """What reads values of one annotation. Made once: a study of a hundred runs holds millions of numbers."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        part = _decoder(next(part for part in inner if part is not type(None)))
        return _or_none(part) if type(None) in inner else part
    if is_dataclass(kind) and isinstance(kind, type):
        return _record_decoder(kind)
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return _each(_decoder(inner[0]))
        parts = tuple(map(_decoder, inner))
        return lambda value: tuple(
            part(entry) for part, entry in zip(parts, _of_type(value, list, tuple), strict=True)
        )
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        entries = _decoder(inner[1])
        return lambda value: {key: entries(entry) for key, entry in _of_type(value, dict).items()}
    if kind in (str, bool):
        return lambda value: _of_type(value, kind)
    return {float: _number, int: _whole}.get(kind, _as_it_is)


def _record_decoder(kind: type) -> _Decoder:
    @cache
    def parts() -> tuple[
        tuple[str, _Decoder], ...
    ]:  # asked for at the first value: a record may hold its own kind
        hints = get_type_hints(kind)
        return tuple((entry.name, _decoder(hints[entry.name])) for entry in fields(kind))

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"{kind.__name__} is an object in JSON, got {type(value).__name__}")
        return kind(**{name: _entry(name, part, value[name]) for name, part in parts() if name in value})

    return read


def _entry(name: str, part: _Decoder, value: Any) -> Any:
    """A record's entry, or a message that says which it is."""
    try:
        return part(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _or_none(part: _Decoder) -> _Decoder:
    return lambda value: None if value is None else part(value)


def _each(part: _Decoder) -> _Decoder:
    return lambda value: tuple([part(entry) for entry in _of_type(value, list, tuple)])


def _number(value: Any) -> float:
    if type(value) is float:  # nearly all that a record holds
        return value
    try:
        return math.nan if value is None else float(_of_type(value, int, float))
    except OverflowError:
        raise ValueError("it is too large a number") from None


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    if not float(_of_type(value, int, float)).is_integer():
        raise ValueError(f"it is {value}; a whole number is meant")
    return int(value)


def _of_type(value: Any, *kinds: type) -> Any:
    """A value that is of one of these types; a truth value is no number."""
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return value
    meant = _WORDS[kinds[0]]
    raise TypeError(f"it is {_WORDS.get(type(value), 'nothing')}; {meant} is meant")


_WORDS: dict[type, str] = {
    **{str: "text", bool: "true or false", int: "a number", float: "a number"},
    **{list: "a list", tuple: "a list", dict: "an object"},
}


def _as_it_is(value: Any) -> Any:
    return value
