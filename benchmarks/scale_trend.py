"""Where a run's scale will be at twice its steps: the fit behind `loopscope.monitor.scale_trend`, and its test.

    python -m benchmarks.scale_trend --keep runs/fates    # from the runs of `benchmarks.fates`: a small file
    python -m benchmarks.scale_trend                      # fit on the runs to be fitted on, and test on the others

Every run gives two cases: what its first half says of the whole, and its first quarter of the half. What is fitted are
`GOES_ON`, `RESTING_SPREAD` and `SPREAD_OF_CHANGE`; the table says how far off they are on runs that the fit never saw,
beside two plain rules: it stays as it is, and it goes on by the same factor over every doubling.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import environment, finish, markdown
from benchmarks.fates_fit import LEVEL, quantile_place
from benchmarks.fates_grid import part
from benchmarks.fates_runs import write_rows
from loopscope.monitor.scale_trend import (
    GOES_ON,
    RESTING_SPREAD,
    SPREAD_OF_CHANGE,
    next_change,
    over_loops,
    size_at,
)
from loopscope.results import decode, load_results, trained_runs
from loopscope.results.layout import RESULT

HISTORIES = Path(__file__).with_name("scale_trend.json")
PER_CHANGE = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
FLOORS = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class History:
    """One run's L2 norm of H over all loops at an eighth, a quarter and half of its steps, and at the end."""

    condition: str
    seed: int
    part: str
    sizes: tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """Logarithms: what the last doubling changed, and what the next one did."""

    condition: str
    part: str
    moved: float
    next: float


def main() -> None:
    """Keep histories where asked, then fit and test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="folder of a study, to take histories from")
    options = parser.parse_args()
    if options.keep:
        write_rows(HISTORIES, histories(options.keep))
    cases = [case for row in load_histories() for case in cases_of(row)]
    goes_on, floor, per_change = fit([case for case in cases if case.part == "fit"])
    print(table(cases))
    shipped = (GOES_ON, RESTING_SPREAD, SPREAD_OF_CHANGE)
    finish(
        {"benchmark": "scale_trend", "fitted": [goes_on, floor, per_change], "shipped": shipped},
        environment(),
    )


def histories(study: Path) -> list[History]:
    """Return the history of every run that has ended and whose depth was the same throughout."""
    found = []
    for run in trained_runs(study):
        if not (run / RESULT).is_file():
            continue
        (result,) = load_results(run).runs
        sizes = [(point.step, over_loops(point.l2_norm)) for point in result.training if len(point.l2_norm)]
        at = [size_at(sizes, result.steps // share) for share in (8, 4, 2, 1)]
        if all(size is not None for size in at):
            kept = tuple(size for size in at if size is not None)
            found.append(History(result.condition, result.seed, part(result.condition, result.seed), kept))
    return found


def load_histories() -> list[History]:
    """Return the committed histories."""
    return [decode(History, row) for row in json.loads(HISTORIES.read_text(encoding="utf-8"))]


def cases_of(row: History) -> list[Case]:
    """Return a run's two cases."""
    logs = [math.log(size) for size in row.sizes]
    return [Case(row.condition, row.part, logs[at] - logs[at - 1], logs[at + 1] - logs[at]) for at in (1, 2)]


def fit(cases: Sequence[Case]) -> tuple[float, float, float]:
    """Return the share that goes on (least absolute distance), and the floor and slope of the interval."""
    shares = [step / 20 for step in range(21)]
    goes_on = min(shares, key=lambda share: sum(abs(case.next - share * case.moved) for case in cases))
    best = (math.inf, 0.0, 0.0)
    for floor in FLOORS:
        for slope in PER_CHANGE:
            left = sorted(
                abs(case.next - goes_on * case.moved) / (floor + slope * abs(case.moved)) for case in cases
            )
            width = left[quantile_place(len(left))]
            halves = [width * (floor + slope * abs(case.moved)) for case in cases]
            outside = [
                max(0.0, abs(case.next - goes_on * case.moved) - half)
                for case, half in zip(cases, halves, strict=True)
            ]
            score = sum(2 * half + 2 / (1 - LEVEL) * out for half, out in zip(halves, outside, strict=True))
            best = min(best, (score, round(width * floor, 3), round(width * slope, 3)))
    return goes_on, best[1], best[2]


def held(cases: Sequence[Case]) -> float:
    """Share of cases whose truth lies in the shipped interval."""
    told = [(case.next, *next_change(case.moved)) for case in cases]
    return sum(abs(true - on) <= spread for true, on, spread in told) / len(told)


def table(cases: Sequence[Case]) -> str:
    """Return how far the shipped rule and two plain ones are off, and how often the interval holds."""
    rules: dict[str, Callable[[Case], float]] = {
        "this rule": lambda case: next_change(case.moved)[0],
        "stays": lambda case: 0.0,
        "goes on by the same factor": lambda case: case.moved,
    }
    groups = {
        name: [case for case in cases if case.part == name] for name in dict.fromkeys(c.part for c in cases)
    }
    groups["all of the test"] = [case for case in cases if case.part != "fit"]
    rows = []
    for name, group in groups.items():
        off = [
            f"{math.exp(statistics.median(abs(case.next - rule(case)) for case in group)):.3f}"
            for rule in rules.values()
        ]
        rows.append([name, str(len(group)), *off, f"{held(group):.0%}"])
    heads = [
        "runs",
        "cases",
        *(f"off by a factor (median), {name}" for name in rules),
        "truth in the 80 % interval",
    ]
    return markdown(heads, rows)


if __name__ == "__main__":
    main()
