"""Nested plain values of configs: read from YAML, compared, merged, and their mistakes put into words."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ValueError: the file is missing, is not YAML, or does not hold a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the path of a YAML config")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; a config is a mapping of sections")
    return values


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the dotted keys in which two nested configs differ, with both values."""
    for key in sorted({*one, *other}):
        left, right = one.get(key), other.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from differences(left, right, f"{prefix}{key}.")
        elif left != right:
            yield f"{prefix}{key}: {left!r} there, {right!r} now"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`, section by section."""
    result = dict(base)
    for key, value in over.items():
        mine = result.get(key)
        both = isinstance(mine, Mapping) and isinstance(value, Mapping)
        result[key] = merged(mine, value) if both else value  # type: ignore[arg-type]
    return result


def changes(base: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `now` that differ from `base`, nested like it."""
    result: dict[str, Any] = {}
    for key, value in now.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := changes(before, value):
                result[key] = inner
        elif value != before:
            result[key] = value
    return result


def problems(error: ValidationError, section: type[BaseModel]) -> Iterator[str]:
    """Return one line per problem: the key, its value, what is allowed, and the nearest name.

    Args:
        section: the model that was validated.
    """
    for entry in error.errors():
        where = [str(part) for part in entry["loc"]]
        name = ".".join(where) or "config"
        if entry["type"] == "extra_forbidden":
            known = _fields(section, where[:-1])
            near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            yield f"unknown key {name}; {hint}"
        elif entry["type"] == "value_error":
            yield f"{name}: " + entry["msg"].removeprefix("Value error, ")
        else:
            yield f"{name} is {entry['input']!r}: {entry['msg'][0].lower()}{entry['msg'][1:]}"


def _fields(section: Any, where: list[str]) -> list[str]:
    """Names of the fields of the config section at `where`, seen from `section`."""
    for part in where:
        field = section.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return list(section.model_fields)
