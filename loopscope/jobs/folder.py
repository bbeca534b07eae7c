"""Whose a run's folder is: a config owns it, and another one is refused before anything is touched."""

from pathlib import Path
from typing import Any

from loopscope.config import RunConfig, parse_config
from loopscope.config.nested import differences, read_yaml
from loopscope.results.layout import CONFIG, visible


def check_folder(config: RunConfig, run: str | Path, resume: bool) -> None:
    """Refuse a folder of another config, one that was begun (without `resume`), or one of something else."""
    run = Path(run)
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run} is a file; name a folder")
    path = run / CONFIG
    if not path.is_file():
        if visible(run) and not path.is_file():  # looked again: another process may begin it in between
            raise ValueError(f"{run} is not empty and holds no run; name a new folder, nothing was touched")
        if resume and not run.exists():
            raise ValueError(f"{run} does not exist, so there is nothing to resume; leave out --resume")
        if not path.is_file():
            return
    there, now = written_config(path), config.model_dump(mode="json")
    refuse_difference(as_resumed(there, now, longer=True), now, run)
    if not resume:
        raise ValueError(f"{run} already holds this run; add --resume to go on, or name a new folder")


def as_resumed(there: dict[str, Any], now: dict[str, Any], longer: bool = False) -> dict[str, Any]:
    """Return a folder's config with what a run may change when it goes on: where it computes and, if `longer`, its end.

    Upward only, and in the unit that it had: more steps, or more epochs.
    """
    kept, asked = there.get("training"), now["training"]
    if not isinstance(kept, dict):
        return there
    kept = {**kept, "device": asked["device"], "threads": asked["threads"]}
    if longer:
        for name in ("steps", "epochs"):
            before, after = kept.get(name), asked[name]
            if type(before) in (int, float) and after is not None and after > before:
                kept[name] = after
    return {**there, "training": kept}


def written_config(path: str | Path) -> dict[str, Any]:
    """A run's config file, completed: settings that came after it was written have their defaults."""
    values = read_yaml(Path(path))
    try:
        return parse_config(values, str(path)).model_dump(mode="json")
    except ValueError:  # another version's, or changed by hand: compared as it is, key by key
        return values


def refuse_difference(there: dict[str, Any], now: dict[str, Any], folder: str | Path) -> None:
    """Raise ValueError with the keys in which a folder's config differs from the one asked for."""
    changes = list(differences(there, now))
    if changes:
        shown = "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")
        raise ValueError(
            f"{folder} belongs to another config ({shown}); name a new folder, nothing was touched"
        )
