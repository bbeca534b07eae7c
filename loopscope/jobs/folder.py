"""Whose a run's folder is: a config owns it, and another one is refused before anything is touched."""

from pathlib import Path
from typing import Any

from loopscope.config import RunConfig, parse_config
from loopscope.config.nested import differences, read_yaml
from loopscope.results.layout import CONFIG


def check_folder(config: RunConfig, run: Path, resume: bool) -> None:
    """Refuse a folder of another config, one that was begun (without `resume`), or one of something else."""
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run} is a file; name a folder")
    path = run / CONFIG
    if not path.is_file():
        if run.is_dir() and any(not entry.name.startswith(".") for entry in run.iterdir()):
            raise ValueError(f"{run} is not empty and holds no run; name a new folder, nothing was touched")
        if resume and not run.exists():
            raise ValueError(f"{run} does not exist, so there is nothing to resume; leave out --resume")
        return
    refuse_difference(written_config(path), config.model_dump(mode="json"), run)
    if not resume:
        raise ValueError(f"{run} already holds this run; add --resume to go on, or name a new folder")


def written_config(path: Path) -> dict[str, Any]:
    """A run's `config.yaml`, completed: settings that came after it was written have their defaults."""
    values = read_yaml(path)
    try:
        return parse_config(values, str(path)).model_dump(mode="json")
    except ValueError:  # another version's, or changed by hand: compared as it is, key by key
        return values


def refuse_difference(there: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise ValueError with the keys in which a folder's config differs from the one asked for."""
    changes = list(differences(there, now))
    if changes:
        shown = "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")
        raise ValueError(
            f"{folder} belongs to another config ({shown}); name a new folder, nothing was touched"
        )
