"""The order of a study's conditions: as they were named, and what nobody named after that."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from loopscope.config.nested import read_yaml
from loopscope.results.layout import STUDY, condition_folder, first_runs, is_study, trained_runs


def ordered_conditions(study: str | Path, began: Mapping[str, str]) -> list[str]:
    """Return a study's conditions as `study.yaml` names them, then others in the order in which they first ran.

    Args:
        began: every condition of the study's runs, with the date of its first run.
    """
    named = {name: place for place, name in enumerate(_named(study))}
    return sorted(began, key=lambda name: (named.get(name, len(named)), not began[name], began[name], name))


def ordered_runs(path: str | Path) -> list[Path]:
    """Return the path itself, or every run of a study that has a checkpoint, by condition and seed.

    Raises:
        ValueError: a study without a single checkpoint.
    """
    return _ordered(path, trained_runs(path))


def ordered_first_runs(path: str | Path) -> list[Path]:
    """Return the path itself, or the run with the lowest seed of every condition of a study.

    Raises:
        ValueError: a study without a single checkpoint.
    """
    return _ordered(path, first_runs(path))


def _ordered(path: str | Path, runs: Iterable[Path]) -> list[Path]:
    """Runs in the order of their conditions; what is of none that was named stays in its order, at the end."""
    places = {condition_folder(path, name): place for place, name in enumerate(_named(path))}
    return sorted(runs, key=lambda run: places.get(run.parent, len(places)))


def _named(path: str | Path) -> list[str]:
    """Conditions that a study's own file names; those of before it kept them have none."""
    names = read_yaml(Path(path) / STUDY).get("conditions") if is_study(path) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
