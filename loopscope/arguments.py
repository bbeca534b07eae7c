"""From words on the command line to a run's config: recipe, then YAML file, then flags."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import ValidationError

from loopscope.config import RunConfig, changes, merged, problems, read_yaml
from loopscope.recipes import CONDITIONS, SIZES, recipe

SECTIONS = ("model", "objective", "data", "training")
Command = TypeVar("Command")


def parse(kind: type[Command], name: str, arguments: Sequence[str], default: Any = None) -> Command:
    parsed: Command = tyro.cli(
        kind,
        prog=f"loopscope {name}",
        description=inspect.getdoc(kind),
        args=list(arguments),
        default=default,
    )
    return parsed


def with_config(
    kind: type[Command], name: str, arguments: Sequence[str]
) -> tuple[Command, RunConfig, dict[str, Any]]:
    """Parse a command that trains: recipe, then YAML file, then flags, each on top of the one before.

    Returns:
        The command, its run config, and what file and flags change in the recipe.
    """
    wants_help = any(argument in ("-h", "--help") for argument in arguments)
    path = _flag(arguments, "config")
    over = read_yaml(Path(path)) if path and not wants_help else {}
    size = _flag(arguments, "size") or over.pop("size", "laptop")
    condition = _flag(arguments, "condition") or over.pop("condition", "dense/rmsnorm")
    over = {key: value for key, value in over.items() if key not in ("size", "condition")}
    readout, placement = _flag(arguments, "model.readout.kind"), _flag(arguments, "objective.placement")
    if condition not in CONDITIONS and readout and placement:
        own = {"model": {"readout": {"kind": readout}}, "objective": {"placement": placement}}
        over = merged(over, own)
    if wants_help:
        size = size if size in SIZES else "laptop"
        condition = condition if condition in CONDITIONS else "dense/rmsnorm"
    base = recipe(size, condition, over)
    sections: dict[str, Any] = {section: getattr(base, section) for section in SECTIONS}
    fields = inspect.signature(kind).parameters
    names: dict[str, Any] = {"size": size} | ({"condition": condition} if "condition" in fields else {})
    make: Callable[..., Command] = kind
    default = make(out=tyro.MISSING, **names, **sections)
    try:
        command = parse(kind, name, arguments, default)
    except ValidationError as error:
        raise ValueError("; ".join(problems(error))) from None
    given = {section: getattr(command, section).model_dump(mode="json") for section in SECTIONS}
    over = merged(over, changes(base.model_dump(mode="json"), given))
    return command, recipe(size, condition, over), over


def _flag(arguments: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value`, before the full parse."""
    for place, argument in enumerate(arguments):
        if argument == f"--{name}":
            return arguments[place + 1] if place + 1 < len(arguments) else None
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None
