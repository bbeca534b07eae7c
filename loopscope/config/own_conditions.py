"""Conditions of a user's own in a study: named changes of a condition, in a YAML file each or side by side in one.

    variants:
      weak: {condition: dense/rmsnorm+penalty, objective: {norm_penalty: {weight: 0.001}}}
      fast: {training: {learning_rate: 3e-3}}

Each changes the condition that it names (dense/rmsnorm where it names none), or is one of its own where it says both
`model.readout` and `objective.placement` (or `objective.schedule`). Its name is its own, so it may contradict what the
condition's name says.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopscope.config.families import Change
from loopscope.config.implied import with_implied
from loopscope.config.known_names import known
from loopscope.config.nested import changes, merged, read_yaml
from loopscope.config.recipes import (
    CONDITIONS,
    has_schedule,
    is_condition,
    is_whole,
    recipe,
    recipe_values,
)
from loopscope.config.run_config import RunConfig, parse_config
from loopscope.results.class_names import own_words

PLAIN = "dense/rmsnorm"
"""What a variant changes where it names no condition."""


def own_conditions(
    names: Sequence[str], variants: Mapping[str, Change] | None = None
) -> dict[str, Change | None]:
    """Return what each of a study's conditions changes, by its name: None for a condition that is known by name.

    Args:
        names: conditions, variants, or YAML files. A file's name is its own `condition`, where that is none that is
            known, else the file's without its ending.
        variants: by name.

    Raises:
        ValueError: two of one name, a variant with the name of a condition, or a file that cannot be read.
    """
    variants = _checked(variants or {})
    found: dict[str, Change | None] = {}
    for word in names:
        name, change = _named(word, variants)
        if name in found:
            raise ValueError(f"conditions is {list(names)}: two of them are called {name!r}; name each once")
        found[name] = change
    return found


def own_recipe(size: str, name: str, change: Change, over: Change | None = None) -> RunConfig:
    """Return the run config of a variant: a size, the condition that it changes, `over`, and on top what it says.

    Raises:
        ValueError: values that do not fit, another size, or a condition that is not known.
    """
    asked = {key: value for key, value in change.items() if key not in ("size", "condition")}
    own_size, base = change.get("size", size), change.get("condition", PLAIN)
    if own_size != size:
        raise ValueError(
            f"variant {name!r} has size {own_size!r} and the study {size!r}: a study has one size; leave it out"
        )
    if not isinstance(base, str) or not is_condition(base):
        whole = merged(over or {}, asked)
        if base != name or not is_whole(whole):
            known(f"condition of variant {name!r}:", str(base), CONDITIONS)
        return recipe(size, name, whole)
    with own_words():
        whole = merged(over or {}, asked)  # what one names, the other need not
        asked = merged(asked, changes(whole, with_implied(whole)))
        values = recipe_values(size, base, over)
        if has_schedule(asked):  # instead of what the condition is trained on, not of what is said beside it
            values["objective"] = dict((over or {}).get("objective") or {})
        values = merged(values, asked)
        return parse_config({**values, "condition": name}, f"variant {name}")


def _checked(variants: Any) -> Mapping[str, Change]:
    if not isinstance(variants, Mapping):
        raise ValueError(
            f"variants is a {type(variants).__name__}; give a mapping of names to what each changes"
        )
    for name, change in variants.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"variants has {name!r}; a variant's name is a text")
        if is_condition(name):
            raise ValueError(
                f"variant {name!r} has the name of a condition, which it changes; give it another"
            )
        if not isinstance(change, Mapping | None):
            raise ValueError(
                f"variant {name!r} is a {type(change).__name__}; give it sections: model, objective, data, training"
            )
    return {name: change or {} for name, change in variants.items()}


def _named(word: str, variants: Mapping[str, Change]) -> tuple[str, Change | None]:
    if word in variants:
        change = variants[word]
        # Whole by itself: then its name is its condition's.
        return word, {"condition": word, **change} if is_whole(change) else change
    if not word.endswith((".yaml", ".yml")):
        return word, None
    values = read_yaml(Path(word))
    own = values.get("condition")
    if isinstance(own, str) and not is_condition(own):
        return own, values
    name = Path(word).stem
    if is_condition(name):
        raise ValueError(f"{word} has the name of a condition, which it changes; give it another")
    return name, {"condition": name, **values} if own is None and is_whole(values) else values
