"""Records to JSON and back, driven by their annotations.

JSON has no NaN or infinity: both are written as null, and null is read back as NaN where a number is meant.
Keys that this version does not know are left out on reading.
"""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


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
    decoded: Record = _decode(kind, value)
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


def _decode(kind: Any, value: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _decode(next(part for part in inner if part is not type(None)), value)
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise TypeError(f"{kind.__name__} is an object in JSON, got {type(value).__name__}")
        hints = get_type_hints(kind)
        known = [entry.name for entry in fields(kind) if entry.name in value]
        return kind(**{name: _decode(hints[name], value[name]) for name in known})
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_decode(inner[0], entry) for entry in value)
        return tuple(_decode(part, entry) for part, entry in zip(inner, value, strict=True))
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        return {key: _decode(inner[1], entry) for key, entry in value.items()}
    if kind is float:
        return math.nan if value is None else float(value)
    return value
