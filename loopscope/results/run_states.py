"""How far a run is: from what lies in its folder, without touching it. Standard library only.

Reading takes no lock, so looking at a run that is being started does not get in its way.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loopscope.results.layout import (
    AUDIT,
    CONFIG,
    METRICS,
    RESULT,
    STUDY,
    has_weights,
    newest_checkpoint,
    step_in_name,
    visible,
)
from loopscope.results.lock import Holder, present_holder

State = Literal["running", "finished", "diverged", "failed", "interrupted"]
_ENDED: dict[str, State] = {"completed": "finished", "diverged": "diverged", "failed": "failed"}
TAIL = 2**16
"""Bytes at the end of a file of metrics that are read: dozens of records."""
DEEPEST_SEARCH = 5
"""Folders below the one that is searched."""


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        state: `running` where a process holds the folder; `finished`, `diverged` or `failed` as its result says; else
            `interrupted`: it was begun, and `--resume` goes on.
        holder: the process that trains it.
        step: the last that was logged, or that its result has.
        saved: step of the newest checkpoint; None without one.
        loss: last loop's on the validation text where it was evaluated, else the training loss, nats per token.
        verdict: of its audit, else the last that the scale monitor measured.
        verdict_of: where the verdict is from.
        why: it ended early.
    """

    path: Path
    state: State
    holder: Holder | None = None
    step: int = 0
    saved: int | None = None
    loss: float | None = None
    loss_of: Literal["validation", "training"] | None = None
    verdict: str | None = None
    verdict_of: Literal["audit", "monitor"] | None = None
    why: str | None = None


def run_state(run: str | Path) -> RunState:
    """Return how far a run is, from its folder. What cannot be read, as it is being written, is left out."""
    run = Path(run)
    result, records, holder = _json(run / RESULT), _last_records(run / METRICS), present_holder(run)
    checkpoint = newest_checkpoint(run)
    step, why = 0, None
    state: State = "interrupted"
    if result is None and (run / RESULT).is_file():
        why = f"{RESULT} cannot be read: it is damaged, or not a result; --resume makes it anew"
    if result:
        state = _ENDED.get(str(result.get("status")), state)
        step = _whole(result.get("steps"))
        failure = result.get("failure")
        why = failure.get("message") if isinstance(failure, dict) else None
    step = max([step, *(_whole(record.get("step")) for record in records)])
    loss, loss_of = _loss(records)
    verdict, verdict_of = _verdict(run, records)
    return RunState(
        path=run,
        state="running" if holder else state,
        holder=holder,
        step=step,
        saved=None if checkpoint is None else step_in_name(checkpoint),
        loss=loss,
        loss_of=loss_of,
        verdict=verdict,
        verdict_of=verdict_of,
        why=why,
    )


def studies_and_runs(folder: str | Path) -> Iterator[tuple[Path, bool]]:
    """Yield the studies and the runs below a folder, itself included, in the order of their paths.

    Returns:
        Pairs of a path and whether it is a study; its runs follow it.
    """
    root = Path(folder)
    for place, folders, _ in os.walk(root):
        path = Path(place)
        below = len(path.relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) * (below < DEEPEST_SEARCH)
        if (path / STUDY).is_file():
            yield path, True
        elif _is_run(path):
            folders.clear()
            yield path, False


def _is_run(path: str | Path) -> bool:
    """Whether a folder is a run's: begun, and no model that was exported or saved in a checkpoint."""
    path = Path(path)
    return (path / CONFIG).is_file() and not has_weights(path) and bool(visible(path))


def _verdict(
    run: Path, records: list[dict[str, Any]]
) -> tuple[str | None, Literal["audit", "monitor"] | None]:
    audited = _json(run / AUDIT)
    if audited and isinstance(word := audited.get("verdict"), str):
        return word, "audit"
    measured = [record["verdict"] for record in records if record.get("verdict")]
    return (str(measured[-1]), "monitor") if measured else (None, None)


def _loss(
    records: list[dict[str, Any]],
) -> tuple[float | None, Literal["validation", "training"] | None]:
    for record in reversed(records):
        with suppress(LookupError, TypeError, ValueError):
            if record["kind"] == "evaluation":
                return float(record["per_loop"][-1]["loss"]), "validation"
    for record in reversed(records):
        with suppress(LookupError, TypeError, ValueError):
            if record["kind"] == "train":
                return float(record["loss"]), "training"
    return None, None


def _last_records(path: Path) -> list[dict[str, Any]]:
    """Records at the end of a file of metrics; the first piece of the tail may be cut, and so may the last line."""
    lines: list[bytes] = []
    with suppress(OSError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        lines = file.read().splitlines()
    found = []
    for line in lines:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                found.append(record)
    return found


def _json(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def _whole(value: Any) -> int:
    return value if type(value) is int else 0
