"""What a folder says of a run or a study that goes on: its settings hold wherever none is named.

What is named comes on top, so that a folder refuses (or takes, as a later end) that and nothing else.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from loopscope.config.implied import with_corpus
from loopscope.config.intervals import EVALUATE_EVERY, stretched_intervals
from loopscope.config.nested import SECTIONS, merged, read_yaml
from loopscope.config.recipes import NAMED, has_schedule, is_baseline, recipe
from loopscope.config.run_config import RunConfig, kept_config, parse_config
from loopscope.config.sizes import is_size, size_change
from loopscope.results.class_names import import_module
from loopscope.results.layout import CONFIG, STUDY

OF_THE_MACHINE = {"device": "auto", "precision": "auto", "threads": None}
"""Settings that a folder's config has resolved, and that `jobs.resumption` takes from there by itself."""
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def kept_run(out: str | Path) -> dict[str, Any] | None:
    """Return a run's own config as nested plain values; None where a folder holds none.

    Raises:
        ValueError: a config that this version does not read.
    """
    path = Path(out) / CONFIG
    if not path.is_file():
        return None
    kept = kept_config(read_yaml(path), str(path)).model_dump()
    return merged(kept, {"training": OF_THE_MACHINE})


def as_config(path: str | Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return what a YAML file says of a run; of a study's own file, what its runs share.

    Raises:
        ValueError: it is the config of a transformers model.
    """
    if isinstance(values.get("model_type"), str) and not values.keys() & set(SECTIONS):
        raise ValueError(
            f"{path} is the config of a transformers model, not of a run; loopscope audit {Path(path).parent} opens it"
        )
    over = values.get("over")
    if Path(path).name != STUDY or not isinstance(over, dict):
        return values
    return {**over, **{key: values[key] for key in ("size", "variants", "slurm") if key in values}}


def kept_study(out: str | Path) -> dict[str, Any]:
    """Return a study's own file: `size`, `over`, `conditions`, `seeds`, `variants`; empty where there is none."""
    path = Path(out) / STUDY
    return read_yaml(path) if path.is_file() else {}


def gone_on_with(kept: Mapping[str, Any], named: Mapping[str, Any]) -> RunConfig:
    """Return the config of a run that goes on: its folder's, with what is named on top.

    Args:
        kept: see `kept_run`.
        named: nested values, with `size` and `condition` where they are.

    Raises:
        ValueError: values that do not fit.
    """
    size, condition = kept["size"], kept["condition"]
    training = dict(named.get("training") or {})
    if training.get("steps") is not None and "epochs" not in training:
        training["epochs"] = None
    if "steps" in training and EVALUATE_EVERY not in training and is_size(size):
        own = size_change(size).get("training", {})
        before, now = (
            {**own, **stretched_intervals(own, steps)}.get(EVALUATE_EVERY)
            for steps in (kept["training"]["steps"], training["steps"])
        )
        if now is not None and kept["training"][EVALUATE_EVERY] == before:
            training[EVALUATE_EVERY] = now
    named = {**named, "training": training}
    model = named.get("model") or {}
    if is_baseline(condition):  # whose layers and loops are named as its looped model has them
        training.pop("depth", None)
        if shape := {name: model[name] for name in ("layers", "loops") if name in model}:
            made = recipe(size, condition, {"model": shape}).model
            named = merged(named, {"model": {"layers": made.layers, "loops": made.loops}})
    if has_schedule(named) and not has_schedule(kept):  # another config: let the folder say so
        kept = {**kept, "objective": {}}
    return parse_config(merged(kept, with_corpus(named)))


def import_named(given: Any, words: Sequence[str]) -> None:
    """Import the modules of classes that the user names, so that a folder's config may name them too.

    Args:
        given: what files of the user's say.
        words: of the command line. What does not fit is left for the config to say.
    """
    texts = list(_texts(given))
    for word in words:
        flag, equals, value = word.partition("=")
        named = ("--model.", "--objective.", "--condition=", "--conditions=")
        texts += [value if equals else flag] if word.startswith(named) or not word.startswith("-") else []
    for module in _modules_of(texts):
        with suppress(ValueError):
            import_module(module)


def refuse_unknown_modules(kept: Any, source: str | Path) -> None:
    """Raise ValueError where a folder names a class of a module that nobody has imported: it may be a stranger's."""
    for module in _modules_of(_texts(kept)):
        if module not in sys.modules:
            raise ValueError(
                f"{source} names a class of module {module!r}, which is not imported: a folder may be a stranger's, so "
                f"a name in it runs no code. If it is yours: loopscope --import {module} COMMAND …"
            )


def _modules_of(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for part in re.split(r"[,/+]", text):
            if _CLASS.fullmatch(part) and (module := part.partition(":")[0]) not in NAMED:
                yield module


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
