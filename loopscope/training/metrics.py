"""The metrics file of a run: one JSON object a line, readable while the run is going."""

import json
import math
from pathlib import Path
from typing import Any

from loopscope.results.layout import METRICS, write_text


class MetricsLog:
    """Appends records to `metrics.jsonl`; on resuming, first drops what will be written again.

    Args:
        resumed_at: step of the checkpoint; later records go.
        steps: steps of the whole run; its final evaluation goes too, because it is always repeated.
    """

    def __init__(self, run: str | Path, resumed_at: int, steps: int) -> None:
        self.path = Path(run) / METRICS
        kept = [
            record
            for record in read_metrics(run)
            if record["step"] <= resumed_at and (record["kind"], record["step"]) != ("evaluation", steps)
        ]
        write_text(self.path, "".join(_line(record) for record in kept))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one record and hand it to the operating system."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"kind": kind, "step": step, **values}))


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """All complete records of a run; a last line cut short by a kill is left out."""
    path = Path(run) / METRICS
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


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
