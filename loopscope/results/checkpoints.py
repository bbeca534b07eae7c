"""Which checkpoint of a run to read: the newest that is whole, or the best on the validation text.

A checkpoint's own `state.json` says what it was worth when it was saved, where the run keeps its best
(`training.keep_best`). Reading falls back: where the newest is damaged and an older one was kept
(`training.keep_last`), that one is taken, with a warning that names the file.
"""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from loopscope.results.layout import checkpoint_folders, has_weights, without_model
from loopscope.results.manifest import READ, check_files

VALIDATION = "validation"
"""In a checkpoint's state: `loss` of the last loop at the trained depth (nats per token) and the `windows` it is of."""


def model_folder(path: str | Path) -> Path:
    """The folder that holds a path's weights: itself, or the newest checkpoint of a run that is whole.

    Raises:
        ValueError: no weights there; says what was looked for, and which runs the folder holds.
    """
    path = Path(path)
    if has_weights(path):
        return path
    if checkpoint := whole_checkpoint(path):
        return checkpoint
    raise ValueError(without_model(path))


def whole_checkpoint(run: str | Path, only: Collection[str] = READ) -> Path | None:
    """The newest checkpoint of a run whose files are those that were written; None without any checkpoint.

    Warns of each that is passed over. Where none is whole it is the newest: whoever reads it says what is wrong. A
    single checkpoint is given unread.

    Args:
        only: names of files that matter.
    """
    found = checkpoint_folders(run)
    if len(found) < 2:
        return found[0] if found else None
    problems = list[str]()
    for checkpoint in found:
        problem = _problem(checkpoint, only)
        if problem is None:
            if problems:
                warnings.warn(
                    f"{'; '.join(problems)}. {checkpoint.name}, the newest that is whole, is read in its place",
                    stacklevel=3,
                )
            return checkpoint
        problems.append(problem)
    return found[0]


def best_checkpoint(run: str | Path) -> Path | None:
    """The kept checkpoint of a run with the lowest validation loss; None where none has one.

    The loss is that of the last loop at the trained depth, as each checkpoint's state has it. Compared are those that
    were validated on as many windows as the newest of them; of equals the older is taken.
    """
    return next(iter(best_checkpoints(run, 1)), None)


def best_checkpoints(run: str | Path, count: int) -> list[Path]:
    """So many checkpoints of a run with the lowest validation loss, best first."""
    valued = [(value, path) for path in checkpoint_folders(run) if (value := _validation(path)) is not None]
    windows = valued[0][0][1] if valued else None
    compared = [(loss, path) for (loss, of), path in reversed(valued) if of == windows]
    return [path for _, path in sorted(compared, key=lambda pair: pair[0])[:count]]


def _validation(checkpoint: Path) -> tuple[float, Any] | None:
    """Loss and windows of a checkpoint; None where its state says none, or cannot be read."""
    try:
        found = (check_files(checkpoint, ()) or {}).get(VALIDATION)
    except ValueError:
        return None
    if not isinstance(found, dict) or type(found.get("loss")) not in (int, float):
        return None
    return float(found["loss"]), found.get("windows")


def _problem(checkpoint: Path, only: Collection[str]) -> str | None:
    """What is wrong with a checkpoint's files, asked once as long as they look the same."""
    key = (str(checkpoint.absolute()), tuple(sorted(only)))
    stamp = tuple(
        (path.name, status.st_size, status.st_mtime_ns)
        for path in sorted(checkpoint.iterdir())
        for status in (path.stat(),)
    )
    if key not in _asked or _asked[key][0] != stamp:
        try:
            check_files(checkpoint, only)
        except ValueError as error:
            _asked[key] = (stamp, str(error).partition("; ")[0])
        else:
            _asked[key] = (stamp, None)
    return _asked[key][1]


_asked: dict[Any, tuple[Any, str | None]] = {}
"""What `_problem` found, by folder and files, with their sizes and times."""
