"""A record of a run's metrics as what trackers draw: curves, and charts with a line per loop."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_LINES = 16
"""Of one chart by loop: more cannot be told apart, and some trackers keep a run for every line."""

_TRAIN = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "tokens", "mfu", "data_share")
_MONITOR = ("growth", "rate")


@dataclass(frozen=True)
class Charts:
    """What one record adds to a tracker's charts. Values are finite."""

    numbers: dict[str, float] = field(default_factory=dict)
    by_loop: dict[str, dict[int, float]] = field(default_factory=dict)


def charts_of(record: Mapping[str, Any], dim: int) -> Charts:
    """Return what a record of `metrics.jsonl` adds to the charts.

    Args:
        dim: width of the hidden state: the L2 norm of a record over its root is the scale.
    """
    kind = record["kind"]
    if kind == "train":
        numbers = {f"train/{name}": record.get(name) for name in _TRAIN}
        terms = record.get("terms") or {}
        if len(terms) > 1:
            numbers |= {f"terms/{name}": value for name, value in terms.items()}
        lines = {
            "loops/cross_entropy": _by_place(record.get("cross_entropy")),
            "loops/scale_rms": {
                loop: norm / math.sqrt(dim)
                for loop, norm in _by_place(record["l2_norm"]).items()
                if norm is not None
            },
        }
    elif kind == "evaluation":
        numbers = {}
        lines = {
            f"loops/validation_{name}": {entry["loop"]: entry.get(name) for entry in record["per_loop"]}
            for name in ("loss", "bits_per_byte")
        }
    elif kind == "monitor":
        numbers = {f"monitor/{name}": record.get(name) for name in _MONITOR}
        lines = {f"monitor/{name}_by_loop": _by_place(record.get(name)) for name in ("carry", "exposure")}
    else:
        return Charts()
    drawn = {name: _finite(values) for name, values in lines.items()}
    return Charts(_finite(numbers), {name: values for name, values in drawn.items() if values})


def shown_loops(loops: int) -> tuple[int, ...]:
    """Return the loops that have a line: all, or so many of a deep model, evenly spread, with the first and the last.

    Example:
        >>> shown_loops(4)
        (1, 2, 3, 4)
        >>> len(shown_loops(1000)), shown_loops(1000)[-1]
        (16, 1000)
    """
    if loops <= MOST_LINES:
        return tuple(range(1, loops + 1))
    return tuple(1 + round(place * (loops - 1) / (MOST_LINES - 1)) for place in range(MOST_LINES))


def _by_place(values: Any) -> dict[int, Any]:
    return dict(enumerate(values or (), start=1))


def _finite(values: Mapping[Any, Any]) -> dict[Any, float]:
    """Numbers alone: what is not finite has no place on an axis, and metrics keep it as null."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
