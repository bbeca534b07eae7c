"""Tables of `benchmarks.rounding`: what each condition pays, and whether the loop map's angular part says how much.

Intervals are 95 % over seeds (Student's t) of a condition, and of a fit over conditions, each with the mean of its
seeds. A fit is made on conditions alone; families test it.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.environment import table
from loopscope.audit.expansion import fit
from loopscope.results.student_t import over_seeds, quantile

FORMATS = ("bf16", "fp16", "int8", "int4", "bf16-autocast", "fp8")
SHOWN = ("bf16", "int8", "int4")
"""Formats whose growth is fitted."""
SATURATED = 0.3
"""Relative errors of a direction above it are left out of a growth: two directions can only differ so far."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """Mean over a condition's seeds: what the angular part predicts of one format's error, and what it did."""

    condition: str
    family: bool
    format: str
    predicted: float  # growth of log(error of the direction) per loop
    measured: float
    angular: float  # log of the angular part's spectral radius, mean over the loops of the growth
    spectral: float


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
    return {"conditions": len(groups), "fits": _print_fits(points)}


def _of_size(record: Record) -> str:
    millions = record["parameters"] / 1e6
    return f" {millions:.1f}M" if millions > 3 else ""


def rows_of(record: Record, name: str) -> list[Mapping[str, Any]]:
    """Return the loops of one format of one record."""
    return list(record["rounding"][name]["loops"])


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


def point_of(condition: str, group: Sequence[Record], name: str) -> Point | None:
    """Return what is predicted and measured of a condition in one format; None where too few loops are small enough."""
    found = [each for record in group if (each := _growths(record, name)) is not None]
    if not found:
        return None
    predicted, measured, angular, spectral = (sum(each) / len(found) for each in zip(*found, strict=True))
    return Point(condition, group[0]["family"], name, predicted, measured, angular, spectral)


def _growths(record: Record, name: str) -> tuple[float, float, float, float] | None:
    """Growth per loop over loops K to 4K of the direction's error: predicted, measured; and the map's own.

    Predicted: every loop adds the same error e and passes on a_k of what is there, a_k the angular part over the
    growth of the scale: e_{k+1} = a_k e_k + e.
    """
    k = record["loops"]
    rows = [row for row in rows_of(record, name) if row["loop"] >= k]
    kept = []
    for row in rows:
        if row["direction"] is None or not 0 < row["direction"] < SATURATED:
            break
        kept.append(row)
    if len(kept) < 3:
        return None
    scales, radii = record["scales"], record["angular"]
    passed = [radii[j] * scales[j] / scales[j + 1] for j in range(len(scales) - 1)]
    error = [1.0]
    for factor in passed:
        error.append(factor * error[-1] + 1.0)
    numbers = [float(row["loop"]) for row in kept]
    measured = _slope(numbers, [math.log(row["direction"]) for row in kept])
    predicted = _slope(numbers, [math.log(error[row["loop"] - 1]) for row in kept])
    chosen = [row["loop"] - 1 for row in kept[:-1]]
    angular = _mean_of([math.log(max(radii[j], 1e-6)) for j in chosen])
    spectral = _mean_of([math.log(max(record["spectral"][j], 1e-6)) for j in chosen])
    return predicted, measured, angular, spectral


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    line = fit(x, y)
    assert line is not None, "three loops at least"
    return line.slope


def _mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _print_fits(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Measured growth against each predictor: a line on conditions, its interval, and its error on families."""
    print("\ngrowth of the direction's error per loop, K to 4K, against what the loop map says")
    predictors: Mapping[str, Callable[[Point], float]] = {
        "angular part and scale, accumulated": lambda point: point.predicted,
        "log of the angular part": lambda point: point.angular,
        "log of the spectral radius": lambda point: point.spectral,
    }
    found, rows = [], []
    for name in SHOWN:
        fitted = [p for p in points if p.format == name and not p.family]
        held = [p for p in points if p.format == name and p.family]
        for title, predictor in predictors.items():
            entry = line_of([predictor(p) for p in fitted], [p.measured for p in fitted])
            if entry is None:
                continue
            slope, half, intercept, explained = entry
            errors = [p.measured - intercept - slope * predictor(p) for p in held]
            mean = _mean_of([p.measured for p in fitted])
            plain = [p.measured - mean for p in held]
            own = [p.measured - predictor(p) for p in held]
            figures: dict[str, Any] = {
                "format": name,
                "predictor": title,
                "conditions": len(fitted),
                "slope": slope,
                "half": half,
                "intercept": intercept,
                "r_squared": explained,
                "families": len(held),
                "error": _rms(errors),
                "error_of_mean": _rms(plain),
                "error_unfitted": _rms(own),
            }
            found.append(figures)
            rows.append(
                [
                    f"{name}, {title}",
                    str(len(fitted)),
                    f"{slope:.2f} ± {half:.2f}",
                    f"{intercept:+.3f}",
                    f"{explained:.2f}",
                    str(len(held)),
                    *(
                        "–" if (left := figures[key]) is None else f"{left:.3f}"
                        for key in ("error", "error_of_mean", "error_unfitted")
                    ),
                ]
            )
    table(
        [
            "format, predictor",
            "conditions",
            "slope",
            "at 0",
            "r²",
            "families",
            "error",
            "of the mean",
            "unfitted",
        ],
        rows,
    )
    return found


def line_of(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float, float] | None:
    """Return a line's slope, half of its 95 % interval, its value at 0 and r²; None for fewer than four points."""
    line = fit(x, y) if len(x) >= 4 else None
    if line is None:
        return None
    degrees = len(x) - 2
    left = sum((b - line.intercept - line.slope * a) ** 2 for a, b in zip(x, y, strict=True))
    mean = _mean_of(x)
    across = sum((a - mean) ** 2 for a in x)
    half = quantile(0.05, degrees) * math.sqrt(left / degrees / across)
    return line.slope, half, line.intercept, line.r_squared


def _rms(values: Sequence[float]) -> float | None:
    return math.sqrt(_mean_of([value**2 for value in values])) if values else None
