"""Tables of `benchmarks.rounding`: what each condition pays. Intervals are 95 % over seeds (Student's t)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.environment import table
from benchmarks.rounding_growth import SHOWN, Record, point_of, print_fits, rows_of
from loopscope.results.student_t import over_seeds

FORMATS = ("bf16", "fp16", "int8", "int4", "bf16-autocast", "fp8")


def print_tables(records: Sequence[Record]) -> dict[str, Any]:
    """Print what was measured; return the figures."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda each: (each["family"], each["parameters"])):
        groups.setdefault(f"{record['condition']}{_of_size(record)}", []).append(record)
    for name in FORMATS:
        _print_format(name, groups)
    _print_growth(groups)
    points = [
        point
        for name, group in groups.items()
        for kind in SHOWN
        if (point := point_of(name, group, kind)) is not None
    ]
    return {"conditions": len(groups), "fits": print_fits(points)}


def _of_size(record: Record) -> str:
    millions = record["parameters"] / 1e6
    return f" {millions:.1f}M" if millions > 3 else ""


def _print_format(name: str, groups: Mapping[str, Sequence[Record]]) -> None:
    print(f"\n{name}: relative error in %, mean over seeds (95 %)")
    rows = []
    for condition, group in groups.items():
        measured = [record for record in group if rows_of(record, name)]
        if not measured:
            rows.append([condition, str(len(group)), *[""] * 7, _outcomes(group, name)])
            continue
        k = measured[0]["loops"]
        rows.append(
            [
                condition,
                str(len(measured)),
                *(_percent(measured, name, "state", loop) for loop in (1, k, 4 * k)),
                *(_percent(measured, name, "direction", loop) for loop in (k, 4 * k)),
                *(_nats(measured, name, loop) for loop in (k, 4 * k)),
                _outcomes(group, name),
                ", ".join(str(record["rounding"][name]["lost_at"] or "–") for record in measured),
            ]
        )
    table(
        [
            *(
                "condition",
                "seeds",
                "H, loop 1",
                "K",
                "4K",
                "direction, K",
                "4K",
                "exit K, nats",
                "4K",
                "verdict",
            ),
            "loses 1 % at",
        ],
        rows,
    )


def _outcomes(group: Sequence[Record], name: str) -> str:
    counted = Counter(record["rounding"][name]["outcome"] for record in group)
    return ", ".join(
        f"{outcome} {count}" if len(counted) > 1 else outcome for outcome, count in counted.items()
    )


def _at(record: Record, name: str, key: str, loop: int) -> float:
    found = [row[key] for row in rows_of(record, name) if row["loop"] == loop]
    return float(found[0]) if found and found[0] is not None else math.nan


def _percent(group: Sequence[Record], name: str, key: str, loop: int) -> str:
    return _mean([100 * _at(record, name, key, loop) for record in group], "{:.2g}")


def _nats(group: Sequence[Record], name: str, loop: int) -> str:
    return _mean([_at(record, name, "excess", loop) for record in group], "{:+.4f}")


def _mean(values: Sequence[float], form: str) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "–"
    found = over_seeds(finite)
    mean = form.format(found.mean)
    if found.low is None or found.high is None:
        return mean
    return f"{mean} ({form.format(found.low)} to {form.format(found.high)})"


def _print_growth(groups: Mapping[str, Sequence[Record]]) -> None:
    """The share of growth that is the start's: what the state says, and what the loops' own addition does."""
    print(
        "\nint8, loops 1 to K: by what factor the error grows, over the state and over what the loops added"
    )
    rows = []
    for condition, group in groups.items():
        measured = [record for record in group if rows_of(record, "int8")]
        if not measured:
            continue
        k = measured[0]["loops"]
        rows.append(
            [
                condition,
                *(
                    _mean([_at(r, "int8", key, k) / _at(r, "int8", key, 1) for r in measured], "{:.2f}")
                    for key in ("state", "added")
                ),
                _mean([100 * record["start_share"] for record in measured], "{:.1f}"),
                _mean([record["scales"][k - 1] for record in measured], "{:.3g}"),
                _mean(
                    [record["scales"][4 * k - 1] / record["scales"][k - 1] for record in measured], "{:.2f}"
                ),
                _mean([max(record["angular"][:k]) for record in measured], "{:.2f}"),
            ]
        )
    table(
        [
            "condition",
            "of the state",
            "of what is added",
            "start, % of H_K",
            "RMS at K",
            "RMS 4K / K",
            "angular",
        ],
        rows,
    )
