"""What was typed, held against the options that there are: unknown, twice, without a value, no number, missing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_origin

from loopscope.cli.options import CommandOption, named_options
from loopscope.config.near_names import near_name
from loopscope.config.nested import shown


def checked_words(command: str, options: Sequence[CommandOption], typed: Sequence[str]) -> list[str]:
    """Return the words of a command line, with options that were given again and add as one.

    Args:
        command: its name, for the message.

    Raises:
        ValueError: the first mistake, with its value, what is allowed and what to do.
    """
    known = named_options(options)
    given: dict[str, list[str]] = {}
    loose: list[str] = []
    for option, values in _taken(command, known, typed):
        if option is None:
            loose += values
            continue
        values = [_as_python(option, value) for value in values]
        if option.name in given and not option.adds:
            before = " ".join(given[option.name])
            raise ValueError(
                f"{option.flag} is given twice ({shown(before)}, then {shown(' '.join(values))}); give it once"
            )
        given[option.name] = [*given.get(option.name, ()), *values]
    for name, values in given.items():
        _check_values(known[name], values)
    _check_places(command, options, loose)
    for option in options:
        if option.required and not option.positional and option.name not in given:
            raise ValueError(f"{option.flag} is missing: {_first_sentence(option.words)}{_more(command)}")
    words = [*loose]
    for name, values in given.items():
        option = known[name]
        if option.switch:
            words += values
        elif option.several and len(values) > 1:
            words += [option.flag, *values]
        else:
            words.append(f"{option.flag}={','.join(values)}")
    return words


def _taken(
    command: str, known: dict[str, CommandOption], typed: Sequence[str]
) -> Iterator[tuple[CommandOption | None, list[str]]]:
    """Each option with the words that are its values; None with words that belong to none."""
    left = list(typed)
    while left:
        word = left.pop(0)
        if not _is_flag(word):
            yield None, [word]
            continue
        key, equals, value = word.partition("=")
        option, on = _find(command, known, key)
        if option.switch:
            if equals:
                raise ValueError(
                    f"{key} takes no value; write {option.flag}, or {option.off} for its opposite"
                )
            yield option, [option.flag if on else option.off]
            continue
        values = [value] if equals else []
        count = _count(option)
        while left and not equals and not _is_flag(left[0]) and (count is None or len(values) < count):
            values.append(left.pop(0))
        if not values or (count is not None and len(values) < count):
            hint = f"; where the value begins with -, write {option.flag}={left[0]}" if left else ""
            what = "a value" if not values else f"{count} values"
            raise ValueError(f"{option.flag} needs {what}: {option.flag} {option.value}{hint}")
        yield option, values


def _as_python(option: CommandOption, value: str) -> str:
    """A value as the parser takes it: of a setting that may be empty, YAML's word for that is Python's."""
    return "None" if value == "null" and "." in option.name and _may_be_empty(option) else value


def _may_be_empty(option: CommandOption) -> bool:
    return option.kind not in option.parts  # a union: None is one of its values


def _find(command: str, known: dict[str, CommandOption], key: str) -> tuple[CommandOption, bool]:
    """An option by what was typed, and whether it is switched on."""
    name = key.lstrip("-").replace("-", "_")
    if key.startswith("--"):
        if name in known:
            return known[name], True
        section, dot, leaf = name.rpartition(".")
        opposite = f"{section}{dot}{leaf.removeprefix('no_')}"
        if leaf.startswith("no_") and opposite in known and known[opposite].switch:
            return known[opposite], False
    near = near_name(name, list(known))
    hint = f"; did you mean {known[near].flag}?" if near else ""
    raise ValueError(f"unknown option {key[:60]}{hint}{_more(command) if not near else ''}")


def _is_flag(word: str) -> bool:
    """Whether a word names an option: `--x`, `-x`; not `-`, nor a number below zero."""
    body = word.lstrip("-")
    return word.startswith("-") and body[:1].isalpha() and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _count(option: CommandOption) -> int | None:
    """How many words it takes; None: as many as come."""
    if not option.several:
        return 1
    inner = get_args(next(part for part in option.parts if get_origin(part) is tuple))
    return None if inner[-1] is Ellipsis else len(inner)


def _check_values(option: CommandOption, values: Sequence[str]) -> None:
    """Raise ValueError where a value is of another type. Its bounds are the config's and the jobs' affair."""
    if option.switch:
        return
    for value in values:
        if _may_be_empty(option) and value == "None":
            continue
        if option.choices and value not in option.choices:
            near = near_name(value, option.choices)
            hint = f"; did you mean {near}?" if near else ""
            raise ValueError(
                f"{option.shown} is {shown(value)}; it is one of {', '.join(option.choices)}{hint}"
            )
        for kind, (read, what) in _NUMBERS.items():
            if all(
                kind is part or (get_origin(part) is tuple and kind is get_args(part)[0])
                for part in option.parts
            ):
                try:
                    read(value)
                except ValueError:
                    raise ValueError(f"{option.shown} is {shown(value)}; it must be {what}") from None


_NUMBERS: dict[type, tuple[Callable[[str], Any], str]] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
}


def _check_places(command: str, options: Sequence[CommandOption], loose: Sequence[str]) -> None:
    """Raise ValueError where words without a flag are too few or too many."""
    places = [option for option in options if option.positional]
    if any(option.several for option in places):
        return
    if len(loose) > len(places):
        word = shown(loose[len(places)])
        takes = f"takes {' '.join(option.shown for option in places)}" if places else "takes options only"
        raise ValueError(f"{word} is one word too many: loopscope {command} {takes}{_more(command)}")
    for option in places[len(loose) :]:
        if option.required:
            raise ValueError(f"{option.shown} is missing: {_first_sentence(option.words)}{_more(command)}")
    for option, word in zip(places, loose, strict=False):
        _check_values(option, [word])


def _more(command: str) -> str:
    return f". loopscope {command} --help says more"


def _first_sentence(words: str) -> str:
    return words.partition(". ")[0].rstrip(".")
