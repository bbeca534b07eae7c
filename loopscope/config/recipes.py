"""Named conditions, and whole runs of them in a named size: functions that change a base config and nothing else.

A size says what is trained and on what; a condition says where the loss is placed, how it reads the state
and what holds the scale. `recipe("laptop", "dense/raw")` is a whole run.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from loopscope.config.baselines import BASELINES, Baseline, asked_of_the_looped, baseline_change
from loopscope.config.families import FAMILIES, Change, Family, family_change
from loopscope.config.implied import with_implied
from loopscope.config.intervals import stretched_intervals
from loopscope.config.known_names import known
from loopscope.config.nested import checked_sections, differences, merged, validated
from loopscope.config.run_config import RunConfig, parse_config
from loopscope.config.sizes import DEFAULT_SIZE, size_change
from loopscope.model.config import ModelConfig
from loopscope.model.config.variants import READOUTS
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.placement_config import PLACEMENTS
from loopscope.results.class_names import own_words

NAMED: Mapping[str, Family | Baseline] = {**FAMILIES, **BASELINES}
"""What changes the architecture under a name of its own, or under a condition's: `huginn`, `unlooped:dense/raw`."""

PENALTY = 0.01
"""Weight of the norm penalty in the published conditions."""


def _condition(placement: str, readout: str, penalty: float = 0.0, interloop: bool = False) -> Change:
    """All that a condition's name says, what it leaves out included, so that no override can falsify it."""
    return {
        "model": {"readout": {"kind": readout}, "carry": ["rmsnorm"] if interloop else []},
        "objective": {
            "placement": placement,
            "norm_penalty": {"weight": penalty},
            "scale_anchor": {"weight": 0.0},
        },
    }


CONDITIONS: Mapping[str, Change] = {
    "terminal/rmsnorm": _condition("terminal", "rmsnorm"),
    "terminal/raw": _condition("terminal", "raw"),
    "dense/rmsnorm": _condition("dense", "rmsnorm"),
    "dense/layernorm": _condition("dense", "layernorm"),
    "dense/raw": _condition("dense", "raw"),
    "dense/final-only": _condition("dense", "final-only"),
    "dense/alpha": _condition("dense", "alpha"),
    "terminal/rmsnorm+penalty": _condition("terminal", "rmsnorm", penalty=PENALTY),
    "dense/rmsnorm+penalty": _condition("dense", "rmsnorm", penalty=PENALTY),
    "dense/rmsnorm+interloop": _condition("dense", "rmsnorm", interloop=True),
}


def recipe(
    size: str = DEFAULT_SIZE, condition: str = "dense/rmsnorm", over: Change | None = None
) -> RunConfig:
    """Return the run config of a size and a condition, with further values on top.

    These are the user's own words: a `package.module:ClassName` in them is imported.

    Raises:
        ValueError: a name that is not known (with the nearest one), or values that do not fit.
    """
    with own_words():
        return parse_config(recipe_values(size, condition, over))


def recipe_values(size: str, condition: str, over: Change | None = None) -> dict[str, Any]:
    """Return the run config of a size and a condition as nested plain values, not yet validated.

    A condition that is not in `CONDITIONS` is a name of the user's own where `over` says what it is, that
    is, holds both `model.readout` and `objective.placement` (or a schedule of placements).
    """
    over = with_implied(checked_sections(size, condition, over or {}))
    values: dict[str, Any] = merged({"size": size, "condition": condition}, size_change(size))
    own = is_whole(over)
    if is_condition(condition) or not own:
        # What is wrong with a schedule is not hidden by the name.
        if has_schedule(over) and not is_condition(condition):
            validated(ObjectiveConfig, over["objective"], "objective")
        change = condition_change(condition, size, over)
        if is_baseline(condition):
            over = asked_of_the_looped(over)
        _refuse_contradiction(condition, change, over)
        values = merged(values, change)
    training = over.get("training") or {}
    if training.get("steps") is not None and "epochs" not in training:
        own = values["training"]
        values["training"] = {**own, "epochs": None, **stretched_intervals(own, training["steps"])}
    return merged(values, {**over, "size": size, "condition": condition})


def has_schedule(change: Change) -> bool:
    """Return whether a change says what a run is trained on phase by phase."""
    objective = change.get("objective")
    return isinstance(objective, Mapping) and objective.get("schedule") is not None


def is_whole(change: Change) -> bool:
    """Return whether a change says by itself what a condition is: its readout, and its placement or schedule."""
    model, objective = (change.get(name) or {} for name in ("model", "objective"))
    whole = isinstance(objective, Mapping) and ("placement" in objective or has_schedule(change))
    return isinstance(model, Mapping) and "readout" in model and whole


def looped_by(size: str, condition: str, over: Change | None = None) -> RunConfig:
    """Return the config that settings are asked in: a baseline's has the layers and loops of its looped model."""
    config = recipe(size, condition, over)
    if not is_baseline(condition):
        return config
    shape = _looped_shape(size, over or {})
    return config.model_copy(update={"model": config.model.model_copy(update=shape)})


def is_condition(name: str) -> bool:
    """Return whether a name is a condition, a family or baseline, or one under a condition (`huginn:dense/raw`)."""
    family, _, condition = name.partition(":")
    if family in NAMED:
        return name == family or _condition_of(condition) is not None
    return _condition_of(name) is not None


def _condition_of(name: str) -> Change | None:
    """What a condition's name stands for, or None: a shipped one, or one that names a variant of the user's own.

    Those are placement/readout, as the shipped ones are: `dense/mypkg.readouts:MaxNorm`, `mypkg:Late/raw`.
    """
    if name in CONDITIONS:
        return CONDITIONS[name]
    placement, slash, readout = name.partition("/")
    whole, plus, extra = readout.partition("+")
    if not slash or (plus and extra not in ("penalty", "interloop")):
        return None
    if not (PLACEMENTS.is_own(placement) or READOUTS.is_own(whole)):
        return None
    if not all(
        kind in names.shipped or names.is_own(kind)
        for kind, names in ((placement, PLACEMENTS), (whole, READOUTS))
    ):
        return None
    return _condition(placement, whole, PENALTY if extra == "penalty" else 0.0, extra == "interloop")


def is_baseline(name: str) -> bool:
    """Return whether a condition's name is a baseline's, with or without a condition of its own."""
    return name.partition(":")[0] in BASELINES


def condition_change(name: str, size: str, over: Change | None = None) -> Change:
    """Return what a condition's name stands for at a size.

    Args:
        over: values on top of the size, which a baseline's shape follows.

    Raises:
        ValueError: a name that is not known, with the nearest one.
    """
    family, colon, condition = name.partition(":")
    if family not in NAMED:
        # A colon follows a family, or a module (`dense/module:Class`): what is nearly a family's name was meant as one.
        misspelt = colon and get_close_matches(family, NAMED, n=1, cutoff=0.75)
        if not misspelt and (found := _condition_of(name)):
            return found
        if not colon:
            known("condition", name, {**CONDITIONS, **NAMED})
        known("family", family, NAMED)
    under = _under(condition) if colon else None
    if family in BASELINES:
        return baseline_change(family, _looped_shape(size, over or {}), under)
    return family_change(family, size, under)


def _under(name: str) -> Change:
    """The condition that a family is put under."""
    return _condition_of(name) or CONDITIONS[known("condition", name, CONDITIONS)]


def _looped_shape(size: str, over: Change) -> dict[str, Any]:
    defaults = {name: ModelConfig.model_fields[name].default for name in ("layers", "loops")}
    section = merged(size_change(size).get("model", {}), over.get("model") or {})
    return {name: section.get(name, default) for name, default in defaults.items()}


def _refuse_contradiction(condition: str, change: Change, over: Change) -> None:
    """A run must be what its label says: what a condition sets cannot be set otherwise under its name."""
    if has_schedule(over):
        raise ValueError(
            f"condition {condition!r} has one objective for the whole run, and objective.schedule others. Give it a "
            "name of your own: condition: my-name, with model.readout.kind and objective.schedule"
        )
    both = merged(change, over)
    contradicted = [
        difference
        for difference in differences(change, both)
        if ": None there" not in difference  # set by `over` alone
    ]
    if contradicted:
        raise ValueError(
            f"condition {condition!r} is contradicted ({'; '.join(contradicted)}). Give it a name of "
            "your own: condition: my-name, with model.readout.kind and objective.placement"
        )
