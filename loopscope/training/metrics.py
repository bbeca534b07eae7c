"""The metrics file of a run: one JSON object a line, readable while the run is going."""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from loopscope.results.faults import PASSING, cause_of, concerning
from loopscope.results.layout import METRICS, checkpoint_folder, write_text
from loopscope.results.manifest import check_files, sha256_of

_NEEDED = {"train": ("loss", "l2_norm"), "evaluation": ("per_loop",), "phase": ("phase", "name")}
"""What a record of a kind must have, beside its step."""


class MetricsLog:
    """Appends records to `metrics.jsonl`; on resuming, first drops what will be written again.

    Warns where the file is not the one that the checkpoint was saved beside: training is not touched by that, but the
    run's curve is.

    Args:
        resumed_at: step of the checkpoint; later records go.
        steps: steps of the whole run; its final evaluation goes too, because it is always repeated.
        also: is given every record that is written, as it can be read back.
        writes: whether this process keeps the run's metrics: one of several does.
    """

    def __init__(
        self,
        run: str | Path,
        resumed_at: int,
        steps: int,
        also: Callable[[Mapping[str, Any]], None] | None = None,
        writes: bool = True,
    ) -> None:
        self.also, self.writes = also, writes
        self.waiting = ""  # lines that a full disk refused
        self.path = Path(run) / METRICS
        if not writes:
            return
        _check_against(checkpoint_folder(run, resumed_at), self.path)
        kept = [
            record
            for record in read_metrics(run)
            if record["step"] <= resumed_at and (record["kind"], record["step"]) != ("evaluation", steps)
        ]
        write_text(self.path, "".join(_line(record) for record in kept))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one record and hand it to the operating system.

        On a full disk it waits in memory for the next record, or for `flush`; a warning says so once.
        """
        if not self.writes:
            return
        record = {key: _plain(value) for key, value in {"kind": kind, "step": step, **values}.items()}
        waited, self.waiting = self.waiting, self.waiting + _line(record)
        try:
            self.flush()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            if not waited:
                warnings.warn(
                    f"{self.path} cannot grow from step {step} on: {cause_of(error)}. Its records wait in memory, and "
                    "training goes on",
                    stacklevel=2,
                )
        if self.also is not None:
            self.also(record)

    def flush(self) -> None:
        """Write the records that wait, whole or not at all.

        Raises:
            OSError: the system refuses; they wait on.
        """
        if not self.waiting:
            return
        size = self.path.stat().st_size if self.path.is_file() else 0
        try:
            with concerning(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(self.waiting)
        except OSError:
            with suppress(OSError):  # half a line would be no record
                os.truncate(self.path, size)
            raise
        self.waiting = ""


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """All records of a run. Lines that are none are left out with a warning, but for a last one cut by a kill."""
    path = Path(run) / METRICS
    if not path.is_file():
        return []
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    tail = lines.pop()  # empty, unless the last line was cut short
    records = [_record(line) for line in lines]
    damaged = [number for number, record in enumerate(records, start=1) if record is None]
    if damaged:
        warnings.warn(
            f"{path} is damaged: {len(damaged)} of {len(lines)} lines are no records (the first is line {damaged[0]}); "
            "they are left out, so the run's curve has fewer points",
            stacklevel=2,
        )
    return [record for record in (*records, _record(tail)) if record is not None]


def _record(line: str) -> dict[str, Any] | None:
    """The record in a line; None where it holds none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or type(found.get("step")) is not int:
        return None
    kind = found.get("kind")
    whole = isinstance(kind, str) and all(key in found for key in _NEEDED.get(kind, ()))
    return found if whole else None


def _check_against(checkpoint: Path, metrics: Path) -> None:
    """Warn where a metrics file does not begin as it was when a checkpoint was saved."""
    if not checkpoint.is_dir():
        return
    table = check_files(checkpoint, ()) or {}
    saved = table.get("metrics")
    if saved is None:  # from before checkpoints knew of it
        return
    size = metrics.stat().st_size if metrics.is_file() else 0
    if size < saved["bytes"]:
        what = f"is gone or was cut short ({size} bytes; {saved['bytes']} when {checkpoint.name} was saved)"
    elif sha256_of(metrics, saved["bytes"]) != saved["sha256"]:
        what = f"was changed since {checkpoint.name} was saved, or is another run's"
    else:
        return
    warnings.warn(
        f"{metrics} {what}: training goes on from the checkpoint bit for bit, but the run's curve up to there is not "
        "what was logged. Restore the file from a copy and resume once more, to have it whole",
        stacklevel=3,
    )


def _line(record: dict[str, Any]) -> str:
    return json.dumps({key: _plain(value) for key, value in record.items()}, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value
