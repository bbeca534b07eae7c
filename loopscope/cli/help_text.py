"""What `--help` prints: short, with what is needed first; `--help-all` has every setting, section by section."""

import inspect
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field

from loopscope.cli.options import CommandOption, options_of
from loopscope.config.near_names import near_name

HELP_WORDS = ("-h", "--help", "--help-all")
LEFT = 28
"""Columns of an option's name; what it means stands right of them."""


@dataclass(frozen=True)
class Sections:
    """Settings that a command takes beside its own options: those of a run's config.

    Attributes:
        options: all of them.
        first: names of the few that the short help shows.
        texts: what each section is about, by its name.
        lists: names to choose from, by what they are.
    """

    options: Sequence[CommandOption] = ()
    first: Sequence[str] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)


def asked_for_help(typed: Sequence[str]) -> bool:
    """Whether help is asked for."""
    return any(word in HELP_WORDS for word in typed)


def help_text(command: str, kind: type, typed: Sequence[str], more: Sections | None = None) -> str:
    """Return a command's help.

    Args:
        kind: its dataclass: options with their words, and an example in its docstring.
        typed: `--help` for the short form, `--help-all` for all, `--help-all SECTION` for a section.

    Raises:
        ValueError: no such section.
    """
    more = more or Sections()
    width = min(shutil.get_terminal_size().columns, 100)
    # A command's own options before those that it shares, and what has no name of its own before all.
    mine = inspect.get_annotations(kind)
    own = sorted(options_of(kind), key=lambda option: (not option.positional, option.name not in mine))
    everything = "--help-all" in typed
    if everything and more.options and (name := _section(typed)):
        inside = [each for each in more.texts if f"{each}.".startswith(f"{known_section(name, more)}.")]
        return "\n".join(line for each in inside for line in (*_of_section(each, more, width), "")).rstrip()
    about, _, example = (inspect.getdoc(kind) or "").partition("Example:")
    places = " ".join(
        option.shown + (" ..." if option.several else "") for option in own if option.positional
    )
    needed = " ".join(
        f"{option.flag} {option.value}" for option in own if option.required and not option.positional
    )
    lines = [" ".join(f"usage: loopscope {command} {places} {needed} [options]".split()), ""]
    for paragraph in about.strip().split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
    lines += [*_table(own, width), ""]
    if everything:
        for section in more.texts:
            lines += [*_of_section(section, more, width), ""]
    elif more.first:
        by_name = {option.name: option for option in more.options}
        lines += ["settings that matter most:", *_table([by_name[name] for name in more.first], width), ""]
        rest = len(more.options) - len(more.first)
        top = ", ".join(name for name in more.texts if "." not in name)
        said = f"{rest} more settings: --help-all lists them, --help-all SECTION those of one of {top}."
        lines += [*textwrap.wrap(said, width), ""]
    for what, names in more.lists.items():
        lines += [f"{what}:", *textwrap.wrap(", ".join(names), width, **_INDENT), ""]  # type: ignore[arg-type]
    if example:
        lines += ["examples:", *(f"  {line.strip()}" for line in example.strip().splitlines())]
    return "\n".join(lines).rstrip()


def known_section(name: str, more: Sections) -> str:
    """Return a section's name if there is one, else raise a ValueError with the nearest."""
    if name in more.texts:
        return name
    near = near_name(name, list(more.texts))
    hint = f"did you mean {near.partition('.')[0]}? There" if near else "there"
    raise ValueError(f"section {name[:60]!r} is not known; {hint} are: {', '.join(more.texts)}")


def _section(typed: Sequence[str]) -> str | None:
    place = list(typed).index("--help-all") + 1
    return typed[place] if place < len(typed) and not typed[place].startswith("-") else None


def _of_section(name: str, more: Sections, width: int) -> Iterator[str]:
    mine = [option for option in more.options if option.name.rpartition(".")[0] == name]
    yield from textwrap.wrap(f"{name}: {' '.join(more.texts[name].split())}", width)
    yield from _table(mine, width)


def _table(options: Sequence[CommandOption], width: int) -> Iterator[str]:
    for option in options:
        name = option.shown if option.positional or option.switch else f"{option.flag} {option.value}"
        said = textwrap.wrap(
            f"{option.words}{_default(option)}", max(30, width - LEFT), break_on_hyphens=False
        ) or [""]
        if len(name) + 4 > LEFT:
            yield f"  {name}"
        else:
            yield f"  {name:{LEFT - 2}}{said.pop(0)}"
        yield from (f"{'':{LEFT}}{line}" for line in said)


def _default(option: CommandOption) -> str:
    value = option.default
    if value is MISSING:
        return " Required."
    if option.switch and value is True:
        return f" ({option.off} turns it off)"
    if value is None or value is False or value in ("", (), "{}"):
        return ""
    return f" ({' '.join(map(str, value)) if isinstance(value, tuple) else value})"


_INDENT = {
    "initial_indent": "  ",
    "subsequent_indent": "  ",
    "break_long_words": False,
    "break_on_hyphens": False,
}
