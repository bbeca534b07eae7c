"""The options of a command as a table: what each takes, and whether what was typed can be one of them.

The table is read from the command's dataclass, where every field has its words beneath it. What is typed is held
against it before anything else happens, so that every mistake is one sentence with the name that was meant.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro

HELP = "help"
"""Of a field's metadata: its words, where a class is made and has no source."""


@dataclass(frozen=True)
class CommandOption:
    """One option of a command, or one of the words that follow it without a name.

    Attributes:
        name: with underscores, and dots between sections: `training.learning_rate`.
        kind: the type of its value.
        default: `MISSING` where it must be given.
        words: what it means.
        positional: whether it has no flag.
    """

    name: str
    kind: Any
    default: Any
    words: str
    positional: bool = False

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def shown(self) -> str:
        """As messages and help call it: a flag, or the name of a word in capitals."""
        return self.name.upper().removesuffix("S") if self.positional else self.flag

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return self.kind is bool

    @property
    def off(self) -> str:
        """As a switch is turned off."""
        section, dot, leaf = self.name.rpartition(".")
        return f"--{section}{dot}no-{leaf}".replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def parts(self) -> tuple[Any, ...]:
        """The types that its value may have, None left out."""
        union = get_origin(self.kind) in (Union, UnionType)
        return tuple(part for part in get_args(self.kind) if part is not NoneType) if union else (self.kind,)

    @property
    def several(self) -> bool:
        """Whether it takes several words."""
        return any(get_origin(part) is tuple for part in self.parts)

    @property
    def adds(self) -> bool:
        """Whether it may be given again, and adds: several texts, or names separated by commas."""
        texts = self.several and all(
            get_args(part)[-1] is Ellipsis and get_args(part)[0] is str for part in self.parts
        )
        return texts or self.name in ("conditions", "rules")

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes, where these are few."""
        if self.switch or not all(get_origin(part) is Literal or part is bool for part in self.parts):
            return ()
        inner = ((True, False) if part is bool else get_args(part) for part in self.parts)
        return tuple(str(choice) for part in inner for choice in part)

    @property
    def value(self) -> str:
        """What stands for its value in help."""
        if self.choices:
            return "{" + ",".join(self.choices) + "}"
        part = self.parts[0]
        if get_origin(part) is tuple:
            inner = get_args(part)
            one = _VALUES.get(inner[0], "VALUE")
            return f"{one} ..." if inner[-1] is Ellipsis else " ".join([one] * len(inner))
        return _VALUES.get(part, "VALUE")


_VALUES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def options_of(kind: type, prefix: str = "") -> tuple[CommandOption, ...]:
    """Return the options of a command's dataclass, sections inside it included."""
    return tuple(
        option for field in fields(kind) for option in _options(field, attribute_words(kind), prefix)
    )


def _options(field: "Field[Any]", words: dict[str, str], prefix: str) -> Iterator[CommandOption]:
    kind, marks = field.type, []
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
    name = f"{prefix}{field.name}"
    if isinstance(kind, type) and is_dataclass(kind):
        yield from options_of(kind, f"{name}.")
        return
    said = field.metadata.get(HELP) or words.get(field.name, "")
    positional = any(mark is tyro.conf.Positional for mark in marks)
    yield CommandOption(name, kind, field.default, " ".join(said.split()), positional)


@cache
def attribute_words(kind: type) -> dict[str, str]:
    """Return the text beneath each field of a class, as its source has it."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        except (OSError, TypeError, ValueError, SyntaxError):  # a class without a source
            continue
        assert isinstance(tree, ast.ClassDef)
        for field, after in pairwise(tree.body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[field.target.id] = str(after.value.value)
    return found


def named_options(options: Sequence[CommandOption]) -> dict[str, CommandOption]:
    """Return the options that have a flag, by name."""
    return {option.name: option for option in options if not option.positional}
