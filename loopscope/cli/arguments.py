"""From words on the command line to a run's config: recipe, then YAML file, then flags."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields, make_dataclass
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
from loopscope.cli.options import options_of
from loopscope.cli.section_flags import as_flags, as_lists, listed_in, read_words, section_values
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
    shown,
)
from loopscope.config.recipes import CONDITIONS, NAMED, is_condition, looped_by, recipe
from loopscope.config.run_config import RunConfig
from loopscope.config.sizes import DEFAULT_SIZE, SIZES, is_size
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
            said = {"placement": placement} if placement else {"schedule": listed_in(schedule, "schedule")}
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
            *((section, *as_flags(getattr(base, section))) for section in SECTIONS),
        ],
    )
    parsed: Any = _parsed(flags, name, words, checked=True)
    given = {section: asdict(getattr(parsed, section)) for section in SECTIONS}
    before = {section: section_values(getattr(base, section)) for section in SECTIONS}
    now = {section: read_words(getattr(base, section), given[section]) for section in SECTIONS}
    found = changes(as_lists(before), as_lists(now))
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
    made = make_dataclass("Settings", [(name, *as_flags(getattr(base, name))) for name in SECTIONS])
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
