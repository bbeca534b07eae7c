"""A section of a run's config as flags of the command line, and back."""

import json
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from typing import Any

from pydantic import BaseModel

from loopscope.cli.options import HELP
from loopscope.config.nested import section_in, yaml_value


def as_flags(section: BaseModel) -> tuple[Any, Any]:
    """A dataclass with a config section's fields, and its field in the one above.

    tyro fills a dataclass without checking more than types, so that the config alone judges values, in
    its own words, once recipe, file and flags are together.
    """
    entries: list[tuple[str, Any, Any]] = []
    for name, info in type(section).model_fields.items():
        value, words = getattr(section, name), info.description or ""
        if isinstance(value, BaseModel):
            entries.append((name, *as_flags(value)))
        elif isinstance(value, Mapping):
            said = {HELP: f"{words} One word of YAML."}
            entries.append((name, str, field(default=json.dumps(value), metadata=said)))
        elif section_in(info.annotation):
            word = None if value is None else json.dumps([entry.model_dump(mode="json") for entry in value])
            said = {HELP: f"{words} One word of YAML."}
            entries.append((name, str | None, field(default=word, metadata=said)))
        else:
            entries.append((name, info.annotation, field(default=value, metadata={HELP: words})))
    made = make_dataclass(type(section).__name__, entries)
    made.__doc__ = type(section).__doc__
    return made, field(default_factory=made)


def read_words(section: BaseModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of a section; what is more than a word in the config, from the one word that it is on the command line."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        before = getattr(section, name)
        if isinstance(before, BaseModel):
            found[name] = read_words(before, value)
        elif isinstance(before, Mapping):
            found[name] = yaml_value(value, f"{name} ({{name: value}})")
        elif section_in(type(section).model_fields[name].annotation):
            found[name] = listed_in(value, name)
        else:
            found[name] = value
    return found


def listed_in(word: str | None, name: str) -> Any:
    """A list of sections, from the one word that it is on the command line."""
    return (
        None if word in (None, "None") else yaml_value(word, f"{name} ([{{name: value}}, {{name: value}}])")
    )


def section_values(section: BaseModel) -> dict[str, Any]:
    """Every setting of a section, those that a list of sections says for it included."""
    found: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found[name] = section_values(value)
        else:
            listed = value is not None and section_in(info.annotation)
            found[name] = [entry.model_dump(mode="json") for entry in value] if listed else value
    return found


def as_lists(value: Any) -> Any:
    """Tuples as lists, as in JSON and YAML."""
    if isinstance(value, dict):
        return {key: as_lists(entry) for key, entry in value.items()}
    return [as_lists(entry) for entry in value] if isinstance(value, tuple | list) else value
