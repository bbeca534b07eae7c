"""Whose a run's folder is: a config owns it, and another one is refused before anything is touched.

What lies in the folder must be that config's too: a checkpoint or a result that was copied from another run is refused
by name.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopscope.config import RunConfig
from loopscope.config.nested import differences, read_yaml
from loopscope.config.run_config import kept_config
from loopscope.results import RunResult, run_from_json
from loopscope.results.checkpoints import whole_checkpoint
from loopscope.results.layout import CONFIG, RESULT, visible
from loopscope.training.checkpoint import refuse_linked_checkpoints

MAY_DIFFER = {
    *("steps", "epochs", "weights"),
    *("device", "precision", "threads", "compile", "cpu_ops", "gradient_checkpointing", "accumulation"),
    *("parallel", "fsdp_reshard"),
    *(
        "log",
        "log_project",
        "log_every",
        "monitor_every",
        "evaluate_every",
        "evaluate_windows",
        "final_windows",
        "checkpoint_every",
        "keep_last",
        "keep_best",
        "save",
    ),
}
"""Settings of training that say how long, how fast and what is written: parts of one run may differ in them."""


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
    refuse_linked_checkpoints(run)
    check_checkpoint(run)


def check_outside(folder: str | Path, source: str | Path) -> None:
    """Refuse a new folder inside the one that it is made from, which stays as it is."""
    if Path(source).is_dir() and Path(folder).resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(
            f"{folder} is inside {source}, which stays as it is; name a new folder outside it, nothing was written"
        )


def check_checkpoint(run: str | Path) -> None:
    """Refuse a run's folder whose newest whole checkpoint is another run's: of another seed, condition, model, …"""
    run = Path(run)
    checkpoint = whole_checkpoint(run)
    if checkpoint is None or not all((folder / CONFIG).is_file() for folder in (run, checkpoint)):
        return
    _refuse_foreign(
        _identity(written_config(run / CONFIG)), _identity(written_config(checkpoint / CONFIG)), checkpoint
    )


class DamagedResultError(ValueError):
    """A result that cannot be read. What the run saved beside it can be gone on with."""


def read_result(run: str | Path) -> RunResult | None:
    """Return a run's result; None where it has none yet.

    Raises:
        DamagedResultError: (a ValueError) it cannot be read.
        ValueError: it is another run's: its condition, seed or config are not those of the folder.
    """
    path = Path(run) / RESULT
    if not path.is_file():
        return None
    try:
        result = run_from_json(path.read_text(encoding="utf-8"))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedResultError(
            f"{path} is cut short or damaged ({error}); restore it from a copy, or move it away: the run then goes on "
            "from its newest checkpoint and writes it anew"
        ) from error
    if not (path.parent / CONFIG).is_file():
        return result
    config = written_config(path.parent / CONFIG)
    training = config.get("training")
    owner = {"condition": config.get("condition"), "seed": dict(training or {}).get("seed", 0)}
    _refuse_foreign(owner, {"condition": result.condition, "seed": result.seed}, path)
    if result.config:  # records of an early version have none
        kept = _completed(_with_infinite(result.config, config), str(path))
        _refuse_foreign(_identity(config), _identity(kept), path)
    return result


def as_resumed(there: dict[str, Any], now: dict[str, Any], longer: bool = False) -> dict[str, Any]:
    """Return a folder's config with what a run may change when it goes on.

    Where it computes, how often it is evaluated, how it is saved and, if `longer`, its end.

    Upward only, and in the unit that it had: more steps, or more epochs.
    """
    kept, asked = there.get("training"), now["training"]
    if not isinstance(kept, dict):
        return there
    where = ("device", "threads", "parallel", "fsdp_reshard")
    free = (*where, "evaluate_every", "log", "log_project", "keep_last", "keep_best", "save")
    kept = {**kept, **{name: asked[name] for name in free}}
    if longer:
        for name in ("steps", "epochs"):
            before, after = kept.get(name), asked[name]
            if type(before) in (int, float) and after is not None and after > before:
                kept[name] = after
    return {**there, "training": kept}


def written_config(path: str | Path) -> dict[str, Any]:
    """A run's config file, completed: settings that came after it was written have their defaults."""
    return _completed(read_yaml(Path(path)), str(path))


def refuse_difference(there: dict[str, Any], now: dict[str, Any], folder: str | Path) -> None:
    """Raise ValueError with the keys in which a folder's config differs from the one asked for."""
    changes = list(differences(there, now))
    if changes:
        raise ValueError(
            f"{folder} belongs to another config ({_shown(changes)}); leave that out (what is not named is taken from "
            "the folder: --resume, or study), or name a new folder. Nothing was touched"
        )


def _refuse_foreign(owner: Mapping[str, Any], part: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError where a part of a folder was made with another config than the folder's own."""
    changes = list(differences(owner, part))
    if changes:
        shown = _shown(changes).replace(" there, ", " in the folder's config, ").replace(" now", " here")
        raise ValueError(
            f"{path} is another run's ({shown}); move it away, or restore the one that belongs there. Nothing was "
            "touched"
        )


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config says which run it is."""
    training = config.get("training")
    if not isinstance(training, Mapping):
        return dict(config)
    return {**config, "training": {key: training[key] for key in training if key not in MAY_DIFFER}}


def _with_infinite(record: Mapping[str, Any], owner: Mapping[str, Any]) -> dict[str, Any]:
    """A record's config, where JSON has nothing for a number that is not finite (`training.clip: .inf`)."""
    found = dict(record)
    for key, value in owner.items():
        if isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = _with_infinite(found[key], value)
        elif isinstance(value, float) and not math.isfinite(value) and key in found and found[key] is None:
            found[key] = value
    return found


def _completed(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    try:
        return kept_config(values, source).model_dump(mode="json")
    except ValueError:  # another version's, or changed by hand: compared as it is, key by key
        return dict(values)


def _shown(changes: list[str]) -> str:
    return "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")
