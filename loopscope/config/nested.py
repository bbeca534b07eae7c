"""Nested plain values of configs: read from YAML, compared, merged, and their mistakes put into words."""

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from loopscope.config.near_names import near_name
from loopscope.model.config.yaml_reader import plain_yaml, plain_yaml_file

SECTIONS = ("model", "objective", "data", "training")
"""Of a run's config, in the order in which they are shown."""
Section = TypeVar("Section", bound=BaseModel)

MOST_SHOWN = 8
"""Problems of one config that a message lists."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ValueError: the file is missing, is not YAML, or does not hold a mapping.
    """
    values = plain_yaml_file(Path(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; a config is a mapping of sections")
    return values


def yaml_value(text: str, source: str) -> Any:
    """Return the value in a text of YAML, as one flag holds it.

    Raises:
        ValueError: no YAML; names the source.
    """
    return plain_yaml(text, source)


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the dotted keys in which two nested configs differ, with both values."""
    for key in sorted({*one, *other}, key=str):
        left, right = one.get(key), other.get(key)
        if (left or right) and all(isinstance(side, Mapping | None) for side in (left, right)):
            yield from differences(
                left or {}, right or {}, f"{prefix}{key}."
            )  # a whole section is told name by name
        elif left != right:
            yield f"{prefix}{key}: {shown(left)} there, {shown(right)} now"


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


def checked_sections(size: Any, condition: Any, over: Any) -> dict[str, Any]:
    """Return values that are put on top of a recipe, with `{}` for a section that is left empty.

    Raises:
        ValueError: a size or condition that is no name, or a section that is no mapping.
    """
    for what, name in (("size", size), ("condition", condition)):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{what} is {shown(name)}; it is a name, as text")
    found = dict(over)
    for section in SECTIONS:
        value = found.get(section, {})
        if not isinstance(value, Mapping | None):
            raise ValueError(
                f"{section} is {shown(value)}; it is a section of settings by name: {section}: {{name: value}}"
            )
        if section in found:
            found[section] = value or {}
    return found


def validated(kind: type[Section], values: Any, source: Path | str) -> Section:
    """Return a section of a config from plain values.

    Raises:
        ValueError: names the source, and each key that does not fit.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        head = f"{source}: " if str(source) else ""
        raise ValueError(f"{head}{'; '.join(problems(error, kind))}") from None


def problems(error: ValidationError, section: type[BaseModel]) -> Iterator[str]:
    """Return one line per problem: the key, its value, what is allowed, and the nearest name.

    Args:
        section: the model that was validated.
    """
    entries = error.errors()
    for entry in entries[:MOST_SHOWN]:
        where = [str(part) for part in entry["loc"]]
        name = ".".join(where) or "config"
        if entry["type"] == "extra_forbidden":
            known = _fields(section, where[:-1])
            near = near_name(where[-1], known)
            hint = f"did you mean {near}?" if near else f"known here: {', '.join(known)}"
            yield f"unknown key {name}; {hint}"
        elif entry["type"] == "value_error":
            yield f"{name}: " + entry["msg"].removeprefix("Value error, ")
        else:
            yield f"{name} is {shown(entry['input'])}: {entry['msg'][0].lower()}{entry['msg'][1:]}"
    if len(entries) > MOST_SHOWN:
        yield f"and {len(entries) - MOST_SHOWN} more"


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 4, 6, 6
        self.maxstring = self.maxother = self.maxlong = 80

    def repr_int(self, x: int, level: int) -> str:
        # Beyond 4,300 digits Python refuses to write a number; it can be read from hexadecimal.
        return (
            f"a number of {x.bit_length():,} bits" if x.bit_length() > 10_000 else super().repr_int(x, level)
        )


_short = _Short().repr


def shown(value: Any) -> str:
    """Return a value as a message shows it: as Python writes it, cut where it is long, wide or deep."""
    return _short(value)


def one_line(text: str, most: int = 1000) -> str:
    """Return a text as one line of at most `most` characters."""
    line = " ".join(text[: 20 * most].split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _fields(section: Any, where: list[str]) -> list[str]:
    """Names of the fields of the config section at `where`, seen from `section`."""
    for part in where:
        if part.isdigit():  # a place in a list of sections
            continue
        field = section.model_fields.get(part)
        section = section_in(field.annotation) if field else None
        if section is None:
            return []
    return list(section.model_fields)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the config section in a field's type: the type itself, or that of a list's entries; None where none is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)
