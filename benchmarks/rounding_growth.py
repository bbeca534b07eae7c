"""Whether the angular part of the loop map says how fast an error of rounding grows: a line over conditions.

A point is the mean of a condition's seeds. A fit is made on conditions alone, with its interval (95 %, Student's t);
families test it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.environment import table
from loopscope.audit.expansion import fit
from loopscope.results.student_t import quantile

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


def rows_of(record: Record, name: str) -> list[Mapping[str, Any]]:
    """Return the loops of one format of one record."""
    return list(record["rounding"][name]["loops"])


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


def print_fits(points: Sequence[Point]) -> list[dict[str, Any]]:
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
