"""From words on the command line to a run's config: recipe, then YAML file, then flags."""

import contextlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import BaseModel

from loopscope.cli.help_text import Sections, asked_for_help, help_text
from loopscope.cli.kept_settings import (
    as_config,
    gone_on_with,
    import_named,
    kept_run,
    kept_study,
    refuse_unknown_modules,
)
from loopscope.cli.options import HELP, options_of
from loopscope.cli.typed_words import checked_words
from loopscope.config.implied import with_corpus
from loopscope.config.intervals import EVALUATE_EVERY
from loopscope.config.nested import (
    SECTIONS,
    changes,
    checked_sections,
    merged,
    one_line,
    read_yaml,
    section_in,
    shown,
    yaml_value,
)
from loopscope.config.recipes import (
    CONDITIONS,
    DEFAULT_SIZE,
    NAMED,
    SIZES,
    is_condition,
    is_size,
    looped_by,
    recipe,
)
from loopscope.config.run_config import RunConfig
from loopscope.results.layout import CONFIG, STUDY

FIRST = (
    "data.corpus",
    "data.files",
    "data.tokenizer.kind",
    "model.dim",
    "model.layers",
    "model.loops",
    "training.steps",
    "training.batch",
    "training.learning_rate",
    "training.seed",
)
"""The ten settings of a run that its short help shows."""

DEEPEST = 10_000
"""That a command unrolls: as deep as a model may be trained."""
_Command = TypeVar("_Command")


def parse(kind: type[_Command], name: str, arguments: Sequence[str]) -> _Command:
    """Parse one command's arguments; print its help and end where that is asked for.

    Raises:
        ValueError: the first mistake, in a sentence, with the name that was meant.
    """
    if asked_for_help(arguments):
        print(help_text(name, kind, arguments))
        raise SystemExit(0)
    return _parsed(kind, name, arguments)


def with_config(
    kind: type[_Command], name: str, arguments: Sequence[str]
) -> tuple[_Command, RunConfig, dict[str, Any]]:
    """Parse a command that trains: recipe, then YAML file, then flags, each on top of the one before.

    Returns:
        The command, its run config, and what file and flags change in the recipe.
    """
    if asked_for_help(arguments):
        print(help_text(name, kind, arguments, settings_of_a_run()))
        raise SystemExit(0)
    options = [*options_of(kind), *settings_of_a_run().options]
    words = list(arguments) if _completes(arguments) else checked_words(name, options, arguments)
    path = _flag(words, "config")
    over = as_config(path, read_yaml(Path(path))) if path else {}
    if (log := _flag(words, "log")) is not None:
        over = merged(over, {"training": {"log": log}})
    out = _flag(words, "out") or ""
    if name == "train" and "--resume" in words:
        import_named(over, words)
        if out and (kept := kept_run(out)):
            return _going_on(kind, name, words, kept, over)
    if name == "study" and out and (study := kept_study(out)):
        import_named(over, words)
        shared = study.get("over") or {}
        named_size = _flag(words, "size") or over.get("size")
        if named_size and named_size != study.get("size"):
            raise ValueError(
                f"{out} belongs to another config (size: {shown(study.get('size'))} there, {shown(named_size)} now); "
                "leave that out, or name a new folder. Nothing was touched"
            )
        refuse_unknown_modules(shared, Path(out) / STUDY)
        over = merged(shared, over)
    size = _flag(words, "size") or over.get("size")
    if size is None:
        size = _kept_size(words) or DEFAULT_SIZE
    condition = _flag(words, "condition") or over.get("condition", "dense/rmsnorm")
    variants = (
        ("variants", "slurm") if name == "study" else ()
    )  # of conditions, and jobs: no setting of every run
    over = {key: value for key, value in over.items() if key not in ("size", "condition", *variants)}
    over = checked_sections(size, condition, over)
    readout, placement = _flag(words, "model.readout.kind"), _flag(words, "objective.placement")
    schedule = _flag(words, "objective.schedule")
    if not is_condition(condition):  # of the user's own: what makes it whole, from file and flags together
        if readout:
            over = merged(over, {"model": {"readout": {"kind": readout}}})
        if placement or schedule:
            said = {"placement": placement} if placement else {"schedule": _listed(schedule, "schedule")}
            over = merged(over, {"objective": said})
    base = looped_by(size, condition, over)
    command, named = _named(kind, name, words, base)
    over = with_corpus(merged(over, named))
    return command, recipe(size, condition, over), over


def _going_on(
    kind: type[_Command], name: str, words: Sequence[str], kept: dict[str, Any], over: dict[str, Any]
) -> tuple[_Command, RunConfig, dict[str, Any]]:
    """A run that goes on: its folder's own config, and on top what file and flags name."""
    for what in ("size", "condition"):
        if named := _flag(words, what):
            over = {**over, what: named}
    over = checked_sections(over.get("size", kept["size"]), over.get("condition", kept["condition"]), over)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said below, of what all of it comes to
        base = gone_on_with(kept, over)
    command, named_by_flags = _named(kind, name, words, base)
    over = merged(over, named_by_flags)
    return command, gone_on_with(kept, over), over


def _named(
    kind: type[_Command], name: str, words: Sequence[str], base: RunConfig
) -> tuple[_Command, dict[str, Any]]:
    """The command, and the settings that its flags change in a config."""
    flags = make_dataclass(
        kind.__name__,
        [
            *((f.name, f.type, f) for f in fields(kind)),  # type: ignore[arg-type]
            *((section, *_as_flags(getattr(base, section))) for section in SECTIONS),
        ],
    )
    parsed: Any = _parsed(flags, name, words, checked=True)
    given = {section: asdict(getattr(parsed, section)) for section in SECTIONS}
    before = {section: _values(getattr(base, section)) for section in SECTIONS}
    now = {section: _read_words(getattr(base, section), given[section]) for section in SECTIONS}
    found = changes(_plain(before), _plain(now))
    # Said, so it holds, also where it is the size's own and other settings would imply another.
    for section, setting, implied_by in (
        ("training", EVALUATE_EVERY, f"--training.{EVALUATE_EVERY}"),
        ("data", "corpus", "--data.files"),
        ("model", "vocabulary", "--data.tokenizer."),
    ):
        if _flag(words, f"{section}.{setting}") and any(
            word.startswith(implied_by.replace("_", "-")) for word in words
        ):
            found = merged(found, {section: {setting: given[section][setting]}})
    return kind(**{f.name: getattr(parsed, f.name) for f in fields(kind)}), found  # type: ignore[arg-type]


@cache
def settings_of_a_run() -> Sections:
    """Return the settings of a run that are flags, with what sections, conditions and sizes there are."""
    base = recipe()
    made = make_dataclass("Settings", [(name, *_as_flags(getattr(base, name))) for name in SECTIONS])
    texts: dict[str, str] = {}
    for name in SECTIONS:
        _texts(name, getattr(base, name), texts)
    lists = {
        "conditions": list(CONDITIONS),
        "families and baselines, alone or before a condition (huginn:dense/raw)": list(NAMED),
        "sizes, or a number of parameters (350m, 1.4b: the published model, scaled)": list(SIZES),
    }
    return Sections(options_of(made), FIRST, texts, lists)


def _texts(name: str, section: BaseModel, found: dict[str, str]) -> None:
    found[name] = (type(section).__doc__ or "").partition("\n\n")[0]
    for inner in type(section).model_fields:
        if isinstance(value := getattr(section, inner), BaseModel):
            _texts(f"{name}.{inner}", value, found)


def _parsed(kind: type[_Command], name: str, arguments: Sequence[str], checked: bool = False) -> _Command:
    words = (
        arguments if checked or _completes(arguments) else checked_words(name, options_of(kind), arguments)
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            parsed: _Command = tyro.cli(kind, prog=f"loopscope {name}", args=list(words))
    except SystemExit as end:
        if not end.code:  # a script for the shell to complete words with
            print(said.getvalue(), end="")
            raise
        # What the table of options lets through and tyro does not: its words, without its box.
        raise ValueError(
            one_line("".join(" " if 0x2500 <= ord(sign) < 0x2580 else sign for sign in said.getvalue()))
        ) from None
    return parsed


def _completes(arguments: Sequence[str]) -> bool:
    """Whether a script for a shell is asked for, with which it completes words: tyro writes it."""
    return bool(arguments) and arguments[0].startswith("--tyro-")


def _as_flags(section: BaseModel) -> tuple[Any, Any]:
    """A dataclass with a config section's fields, and its field in the one above.

    tyro fills a dataclass without checking more than types, so that the config alone judges values, in
    its own words, once recipe, file and flags are together.
    """
    entries: list[tuple[str, Any, Any]] = []
    for name, info in type(section).model_fields.items():
        value, words = getattr(section, name), info.description or ""
        if isinstance(value, BaseModel):
            entries.append((name, *_as_flags(value)))
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


def _read_words(section: BaseModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of a section; what is more than a word in the config, from the one word that it is on the command line."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        before = getattr(section, name)
        if isinstance(before, BaseModel):
            found[name] = _read_words(before, value)
        elif isinstance(before, Mapping):
            found[name] = yaml_value(value, f"{name} ({{name: value}})")
        elif section_in(type(section).model_fields[name].annotation):
            found[name] = _listed(value, name)
        else:
            found[name] = value
    return found


def _listed(word: str | None, name: str) -> Any:
    return (
        None if word in (None, "None") else yaml_value(word, f"{name} ([{{name: value}}, {{name: value}}])")
    )


def _values(section: BaseModel) -> dict[str, Any]:
    """Every setting of a section, those that a list of sections says for it included."""
    found: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found[name] = _values(value)
        else:
            listed = value is not None and section_in(info.annotation)
            found[name] = [entry.model_dump(mode="json") for entry in value] if listed else value
    return found


def _plain(value: Any) -> Any:
    """Tuples as lists, as in JSON and YAML."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def split_names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def depths_of(text: str, name: str = "loops") -> tuple[int, ...]:
    """Return depths from one word, such as 1,2,4,8: each once, shallow first.

    Raises:
        ValueError: one that is no whole number from 1 to `DEEPEST`.
    """
    names = split_names(text)
    for each in names:
        if not each.isdecimal() or not 1 <= int(each) <= DEEPEST:
            raise ValueError(
                f"{name} is {text!r}, {each!r} is no depth: give whole numbers from 1 to {DEEPEST:,}, such as 1,2,4,8"
            )
    if not names:
        raise ValueError(f"{name} is empty; give depths such as 1,2,4,8")
    return tuple(sorted({int(each) for each in names}))


def check_counts(command: Any, *names: str, most: int = 10**9) -> None:
    """Raise ValueError for one of a command's options that is given and not from 1 to `most`."""
    for name in names:
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be a whole number from 1 up")
        if value is not None and value > most:
            raise ValueError(f"{name} is {value}; it must be a whole number from 1 to {most:,}")


def _kept_size(words: Sequence[str]) -> str | None:
    """The size of the run or study in `--out`: going on needs no word about it, and older ones had another default."""
    for name in (CONFIG, STUDY):
        path = Path(_flag(words, "out") or "") / name
        if _flag(words, "out") and path.is_file():
            size = read_yaml(path).get("size")
            if isinstance(size, str) and is_size(size):
                return size
    return None


def _flag(words: Sequence[str], name: str) -> str | None:
    """The value of an option that takes one, of words that were checked: `--name=value`."""
    start = f"--{name.replace('_', '-')}="
    return next((word.removeprefix(start) for word in words if word.startswith(start)), None)
