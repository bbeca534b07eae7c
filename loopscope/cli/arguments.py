"""From words on the command line to a run's config: recipe, then YAML file, then flags."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
import yaml
from pydantic import BaseModel

from loopscope.config.nested import changes, merged, read_yaml
from loopscope.config.recipes import DEFAULT_SIZE, SIZES, is_condition, looped_by, recipe
from loopscope.config.run_config import RunConfig
from loopscope.results.layout import CONFIG, STUDY

SECTIONS = ("model", "objective", "data", "training")
_Command = TypeVar("_Command")


def parse(kind: type[_Command], name: str, arguments: Sequence[str]) -> _Command:
    """Parse one command's arguments; on a mistake tyro says what was meant and exits with 2."""
    parsed: _Command = tyro.cli(
        kind,
        prog=f"loopscope {name}",
        description=inspect.getdoc(kind),
        args=list(arguments),
    )
    return parsed


def with_config(
    kind: type[_Command], name: str, arguments: Sequence[str]
) -> tuple[_Command, RunConfig, dict[str, Any]]:
    """Parse a command that trains: recipe, then YAML file, then flags, each on top of the one before.

    Returns:
        The command, its run config, and what file and flags change in the recipe.
    """
    wants_help = any(argument in ("-h", "--help") for argument in arguments)
    path = _flag(arguments, "config")
    over = read_yaml(Path(path)) if path and not wants_help else {}
    size = _flag(arguments, "size") or over.get("size") or _kept_size(arguments) or DEFAULT_SIZE
    condition = _flag(arguments, "condition") or over.get("condition", "dense/rmsnorm")
    variants = ("variants",) if name == "study" else ()  # of conditions: no setting of every run
    over = {key: value for key, value in over.items() if key not in ("size", "condition", *variants)}
    readout, placement = _flag(arguments, "model.readout.kind"), _flag(arguments, "objective.placement")
    if not is_condition(condition) and readout and placement:
        own = {"model": {"readout": {"kind": readout}}, "objective": {"placement": placement}}
        over = merged(over, own)
    if wants_help:
        size = size if size in SIZES else DEFAULT_SIZE
        condition = condition if is_condition(condition) else "dense/rmsnorm"
    base = looped_by(size, condition, over)
    flags = make_dataclass(
        kind.__name__,
        [
            *((f.name, f.type, f) for f in fields(kind)),  # type: ignore[arg-type]
            *((section, *_as_flags(getattr(base, section))) for section in SECTIONS),
        ],
    )
    flags.__doc__ = kind.__doc__
    parsed: Any = parse(flags, name, arguments)
    given = {section: asdict(getattr(parsed, section)) for section in SECTIONS}
    before = base.model_dump()
    over = merged(over, changes(_plain(before), _plain(_read_words(before, given))))
    command = kind(**{f.name: getattr(parsed, f.name) for f in fields(kind)})  # type: ignore[arg-type]
    return command, recipe(size, condition, over), over


def _as_flags(section: BaseModel) -> tuple[Any, Any]:
    """A dataclass with a config section's fields, and its field in the one above.

    tyro fills a dataclass without checking more than types, so that the config alone judges values, in
    its own words, once recipe, file and flags are together.
    """
    entries: list[tuple[str, Any, Any]] = []
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            entries.append((name, *_as_flags(value)))
        elif isinstance(value, Mapping):
            text = Annotated[str, tyro.conf.arg(help=f"{info.description or ''} One word of YAML.")]
            entries.append((name, text, field(default=json.dumps(value))))
        else:
            help_text = info.description or ""
            entries.append(
                (name, Annotated[info.annotation, tyro.conf.arg(help=help_text)], field(default=value))
            )
    made = make_dataclass(type(section).__name__, entries)
    made.__doc__ = type(section).__doc__
    return made, field(default_factory=made)


def _read_words(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that are mappings in the config, from the one word that they are on the command line."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        before = base.get(key)
        if isinstance(before, Mapping):
            found[key] = _read_words(before, value) if isinstance(value, Mapping) else _mapping(key, value)
        else:
            found[key] = value
    return found


def _mapping(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{key} is {text!r}, which is no YAML: {error}; write '{{name: value}}'") from None


def _plain(value: Any) -> Any:
    """Tuples as lists, as in JSON and YAML."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def split_names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def check_counts(command: Any, *names: str) -> None:
    """Raise ValueError for one of a command's options that is given and below 1."""
    for name in names:
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be a whole number from 1 up")


def _kept_size(arguments: Sequence[str]) -> str | None:
    """The size of the run or study in `--out`: going on needs no word about it, and older ones had another default."""
    for name in (CONFIG, STUDY):
        path = Path(_flag(arguments, "out") or "") / name
        if _flag(arguments, "out") and path.is_file():
            size = read_yaml(path).get("size")
            if isinstance(size, str) and size in SIZES:
                return size
    return None


def _flag(arguments: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value`, before the full parse."""
    for place, argument in enumerate(arguments):
        if argument == f"--{name}":
            return arguments[place + 1] if place + 1 < len(arguments) else None
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None
