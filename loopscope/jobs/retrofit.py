"""From a folder of transformers to a looped model's folder, and what its recipe will do, read and measured."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from loopscope.config.nested import merged, read_yaml
from loopscope.config.recipes import PENALTY, recipe
from loopscope.config.run_config import RunConfig
from loopscope.config.sizes import DEFAULT_SIZE, SIZES
from loopscope.interop.huggingface.retrofit_plan import RetrofitPlan
from loopscope.interop.huggingface.retrofit_source import (
    RetrofitFolder,
    find_source,
    load_source,
    tokenizer_text,
)
from loopscope.interop.huggingface.retrofitted import Retrofitted, check_recipe, loop_source
from loopscope.interop.model_folder import save_model
from loopscope.jobs.audit import judge_model, parse_objective
from loopscope.jobs.folder import check_outside
from loopscope.jobs.opened import open_model
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.placement_config import placement_of
from loopscope.plan.static_audit import audit_config
from loopscope.recurrence import check_loops
from loopscope.results import JudgedModel, RetrofitRecord, Verdict, provenance, to_json
from loopscope.results.layout import RETROFIT, TOKENIZER, TRAIN, visible

LEARNING_RATE = 1e-4
"""Where training of a source that is trained already goes on, if nobody says: a tenth of the sizes' own."""


@dataclass(frozen=True)
class RetrofitSettings:
    """What is made of a source.

    Attributes:
        plan: which layers go where.
        model: settings of `model` around them: loops, readout, carry, injection, …
        objective: what it will be trained on, as `parse_objective` reads it.
        training: settings of `training` of the config that it goes on with.
        measure: judge the model as it is, beside its recipe.
    """

    plan: RetrofitPlan = field(default_factory=RetrofitPlan)
    model: Mapping[str, Any] = field(default_factory=dict)
    objective: str = "dense"
    training: Mapping[str, Any] = field(default_factory=dict)
    measure: bool = True


def retrofit_model(source: str | Path, out: str | Path, settings: RetrofitSettings) -> RetrofitRecord:
    """Loop a folder of transformers (or a model of the hub), and write the looped model's folder.

    In it, beside what every model folder has: `retrofit.json`, the record that is returned, and `train.yaml`, a run's
    config that goes on from here on text in the source's own tokens.

    Raises:
        ValueError: before anything is loaded: a folder that is not empty or is inside the source, an objective that is
            not known, no loops, a source without tokenizer that has no room for the ids of another.
            Then what `find_source`, `load_source` and `loop_source` raise. Nothing is written.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or visible(out)):
        raise ValueError(f"{out} exists and is not empty; name a new folder, nothing was written")
    check_outside(out, source)
    objective = parse_objective(settings.objective)
    model = {**settings.model}
    check_loops(model.get("loops", 4))
    if placement_of(objective).needs_gate:
        model["exit_gate"] = True
    check_recipe(model)
    found = find_source(source)
    settings.plan.places(found.layers)
    tokens = tokenizer_text(found.folder)
    if tokens is None:
        _check_room(found)
    made = loop_source(load_source(found), settings.plan, model)
    going_on = _train_config(found, made, out, objective, tokens is not None, settings.training)
    record = _record(found, made, _run_of(going_on), tokens is not None)
    files = {RETROFIT: to_json(record), TRAIN: yaml.safe_dump(going_on, sort_keys=False, allow_unicode=True)}
    if tokens is not None:
        files[TOKENIZER] = tokens
    save_model(made.model, out, {"objective": objective.model_dump(mode="json")}, files)
    judged = _judged(out) if settings.measure else None
    return RetrofitRecord(**{**vars(record), "judged": judged})


def recipe_of(path: str | Path) -> dict[str, Any]:
    """Return the sections `model` and `training` of a YAML file, and `objective` where it has one.

    Raises:
        ValueError: no YAML, or another section.
    """
    values = read_yaml(path)
    if others := [name for name in values if name not in ("model", "objective", "training")]:
        raise ValueError(
            f"{path} has {others[0]!r}; a retrofit takes the sections model, objective and training"
        )
    return values


def _check_room(source: RetrofitFolder) -> None:
    """Refuse a source without a tokenizer, if what `train.yaml` then falls back to makes more ids than it has."""
    needed, there = recipe(DEFAULT_SIZE).data.tokenizer.vocabulary, int(source.config.vocab_size)
    if there < needed:
        raise ValueError(
            f"{source.folder} has no {TOKENIZER}, and no other tokenizer that can be read, and its {there:,} ids are "
            f"too few for a tokenizer trained here ({needed:,}); put the {TOKENIZER} that it was trained with there"
        )


def _train_config(
    source: RetrofitFolder,
    made: Retrofitted,
    out: Path,
    objective: ObjectiveConfig,
    tokens: bool,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """What a run's YAML file says that goes on from the folder. Its paths are whole, so that it runs from anywhere."""
    model, folder = made.model.config, out.resolve()
    carry = "".join(f"+{step}" for step in model.carry)
    name = f"{source.folder.resolve().name} {objective.placement}/{model.readout.kind}{carry}"
    named = {"readout", *(SIZES[DEFAULT_SIZE]().get("model") or {})}
    whole = model.model_dump(mode="json")
    return {
        "size": DEFAULT_SIZE,
        "condition": name,
        "model": {key: whole[key] for key in whole if key in named or not model.unchanged(key)},
        "objective": {
            "placement": objective.placement,
            **objective.model_dump(mode="json", exclude_defaults=True),
        },
        "data": {"tokenizer": {"kind": "file", "path": str(folder / TOKENIZER)}} if tokens else {},
        "training": {"weights": str(folder), "learning_rate": LEARNING_RATE, **training},
    }


def _run_of(values: Mapping[str, Any]) -> RunConfig:
    """The run that a YAML file stands for."""
    sections = {key: value for key, value in values.items() if key not in ("size", "condition")}
    return recipe(values["size"], values["condition"], sections)


def _record(source: RetrofitFolder, made: Retrofitted, run: RunConfig, tokens: bool) -> RetrofitRecord:
    places, notes = made.places, list(source.notes)
    if not tokens:
        notes.append(
            "the source has no tokenizer that can be read; name the one that it was trained with: "
            "--data.tokenizer.kind file --data.tokenizer.path FILE"
        )
    return RetrofitRecord(
        source=str(source.folder),
        family=source.family.model_type,
        loops=made.model.config.loops,
        parameters=made.model.parameter_count(),
        tied=source.tied,
        prelude=places.prelude,
        loop=places.loop,
        coda=places.coda,
        dropped=places.dropped,
        new=made.new,
        exact=made.exact,
        difference=made.difference,
        own_difference=made.own_difference,
        batch=made.batch,
        static=audit_config(run),
        others=tuple(_others(run)),
        provenance=provenance(),
        notes=tuple(notes),
    )


def _others(run: RunConfig) -> list[tuple[str, Verdict]]:
    """What the same layers would start as under another readout, carry or penalty: read, not measured."""
    word = run.objective.placement
    changes: dict[str, dict[str, Any]] = {
        "--readout raw": {"model": {"readout": {"kind": "raw"}}},
        f"--objective {word}+norm_penalty={PENALTY}": {"objective": {"norm_penalty": {"weight": PENALTY}}},
        "--carry rmsnorm": {"model": {"carry": ["rmsnorm"]}},
    }
    found = []
    for option, change in changes.items():
        values = merged(run.model_dump(), change)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other = RunConfig.model_validate(values)
        except ValueError:  # settings that do not go with what was chosen
            continue
        if other != run:
            found.append((option, audit_config(other).verdict))
    return found


def _judged(folder: Path) -> JudgedModel | None:
    """The verdict on the model as it is, on a little text; None, with a warning, where none can be read."""
    try:
        return judge_model(open_model(folder), sequences=2, length=None)
    except ValueError as error:
        warnings.warn(f"the model is written, and was not measured: {error}", stacklevel=3)
        return None
