"""What is compared: from paths to completed runs and to models that are no run, each with its name beside others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopscope.config.known_names import known
from loopscope.config.nested import differences, read_yaml
from loopscope.interop.huggingface.hub import is_hub_name
from loopscope.interop.huggingface.pretrained import is_transformers_folder
from loopscope.jobs.study_order import ordered_conditions, ordered_runs
from loopscope.jobs.train import finished
from loopscope.results import RunResult
from loopscope.results.layout import (
    CONFIG,
    STUDY,
    is_model_folder,
    is_study,
    newest_checkpoint,
)

_ELSEWHERE = ("seed", "threads", "device")
"""Training settings in which runs of one condition differ."""


@dataclass(frozen=True)
class SourceRun:
    """A run or a model, where it was found, and what it is called in a comparison."""

    run: Path
    source: Path
    condition: str
    name: str
    trained_here: bool = True  # False: a model folder, of which nothing says how it was trained


@dataclass(frozen=True)
class Runs:
    """Completed runs, condition by condition, and a note on every other one."""

    kept: list[SourceRun]
    notes: list[str]


def completed_runs(paths: Sequence[str | Path], conditions: Sequence[str] | None = None) -> Runs:
    """Return the completed runs of studies and of single runs, and models in folders that are no run.

    A condition that several paths hold is one condition where only the seed differs; else each is named with its path.

    Args:
        conditions: names of those to keep; None: all.

    Raises:
        ValueError: a path that holds neither, or fewer than two conditions with completed runs.
    """
    sources = [Path(path) for path in paths]
    if len(set(sources)) != len(sources):
        raise ValueError(f"paths are {', '.join(map(str, sources))}; name each study or run once")
    found = _named([run for source in sources for run in _runs(source)])
    order = list(dict.fromkeys(entry.name for entry in found))
    if conditions is not None:
        # The plain name of a condition stands for all that have it.
        asked = [known("condition of these runs", name, _names(found)) for name in dict.fromkeys(conditions)]
        order = [name for ask in asked for name in order if ask in (name, _plain(found, name))]
    kept, notes = [], []
    for entry in (entry for name in order for entry in found if entry.name == name):
        result = finished(entry.run) if entry.trained_here else None
        if not entry.trained_here or (result is not None and result.status == "completed"):
            kept.append(entry)
        else:
            shown = entry.run.relative_to(entry.source) if len(sources) == 1 else entry.run
            notes.append(f"{shown} is left out: {result.status if result else 'not finished'}.")
    if len({entry.name for entry in kept}) < 2:
        there = ", ".join(sorted({entry.name for entry in kept})) or "none"
        left = f" ({' '.join(notes)})" if notes else ""
        raise ValueError(
            "a comparison needs two conditions with completed runs, or models, and "
            f"{', '.join(map(str, sources))} has {there}{left}; add one: loopscope study --conditions …, "
            "or name another run or study too"
        )
    return Runs(kept, notes)


def _runs(source: Path) -> list[SourceRun]:
    """Runs of one path, conditions in the study's order."""
    if is_study(source):
        runs = ordered_runs(source)
    elif (source / CONFIG).is_file() and newest_checkpoint(source):
        runs = [source]
    elif is_transformers_folder(source) or is_model_folder(source) or is_hub_name(source):
        name = source.as_posix() if is_hub_name(source) else source.resolve().name
        return [SourceRun(source, source, name, name, trained_here=False)]
    else:
        raise ValueError(
            f"{source} holds neither a study ({STUDY}), nor a run with a checkpoint, nor a model (config.json or "
            f"{CONFIG} beside its weights); compare takes the folders that loopscope study and loopscope train wrote, "
            "and models of others"
        )
    named = {run: str(read_yaml(run / CONFIG).get("condition")) for run in runs}
    began: dict[str, str] = {}
    for run in runs:
        date = _began(finished(run))
        began[named[run]] = min(filter(None, (began.get(named[run]), date)), default="")
    order = ordered_conditions(source, began)
    return [
        SourceRun(run, source, named[run], named[run]) for name in order for run in runs if named[run] == name
    ]


def _began(result: RunResult | None) -> str:
    return result.provenance.date if result and result.provenance else ""


def _named(runs: Sequence[SourceRun]) -> list[SourceRun]:
    """Runs with names that tell conditions apart."""
    sources = list(dict.fromkeys(run.source for run in runs))
    short = {source: source.resolve().name for source in sources}
    if len(set(short.values())) < len(sources):
        short = {source: str(source) for source in sources}
    result = []
    for run in runs:
        alike = [other for other in runs if other.condition == run.condition]
        apart = len({other.source for other in alike}) > 1 and not _one_condition(alike)
        where = short[run.source] if short[run.source] != run.condition else str(run.source)
        result.append(replace(run, name=f"{run.condition} ({where})" if apart else run.condition))
    return result


def _one_condition(runs: Sequence[SourceRun]) -> bool:
    """Whether runs of one name are one condition at different seeds."""
    if not all(run.trained_here for run in runs):
        return False
    configs = [read_yaml(run.run / CONFIG) for run in runs]
    seeds = [(config.get("training") or {}).get("seed", 0) for config in configs]
    first = _settings(configs[0])
    same = not any(list(differences(first, _settings(config))) for config in configs[1:])
    return same and len(set(seeds)) == len(seeds)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    training = {key: value for key, value in (config.get("training") or {}).items() if key not in _ELSEWHERE}
    return {**config, "training": training}


def _names(runs: Sequence[SourceRun]) -> dict[str, None]:
    return dict.fromkeys(name for run in runs for name in (run.name, run.condition))


def _plain(runs: Sequence[SourceRun], name: str) -> str:
    return next(run.condition for run in runs if run.name == name)
