"""Seeds to means and intervals: what a report says about a condition.

Intervals are those of `loopscope.results.student_t`, which are in records and on terminals too: none from fewer than
three seeds, and on a log scale where a quantity is compared in factors.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loopscope.report.looks import Looks
from loopscope.results import LoopMetrics, RunResult
from loopscope.results.student_t import over_seeds_of


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and its interval where there are seeds enough for one."""

    mean: float
    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Return the ends of the interval, where there is one; else the mean twice."""
        return (self.mean, self.mean) if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class StudyCondition:
    """One condition of a study at one size, over its seeds."""

    name: str
    size: str
    runs: tuple[RunResult, ...]  # all of them, also those that did not complete

    @property
    def completed(self) -> tuple[RunResult, ...]:
        """The condition's runs with a final evaluation."""
        return tuple(run for run in self.runs if run.status == "completed" and run.per_loop)

    @property
    def loops(self) -> int:
        """The deepest loop that any completed run evaluated."""
        return max((len(run.per_loop) for run in self.completed), default=0)

    def per_loop(self, field: str) -> list[Estimate]:
        """Return an estimate of one `LoopMetrics` field per loop."""
        return [
            estimate(
                field,
                [getattr(run.per_loop[loop], field) for run in self.completed if loop < len(run.per_loop)],
            )
            for loop in range(self.loops)
        ]

    def of(self, quantity: str, figure: Callable[[RunResult], float | None]) -> Estimate:
        """Return an estimate of any figure of a run, over the condition's seeds.

        Args:
            quantity: what it is, which decides the scale of its interval.
        """
        values = [figure(run) for run in self.completed]
        return estimate(quantity, [value for value in values if value is not None])


def group_runs(runs: Sequence[RunResult]) -> list[StudyCondition]:
    """Group runs into conditions in order of appearance; the same condition at another size is another one."""
    grouped: dict[tuple[str, str], list[RunResult]] = {}
    for run in runs:
        grouped.setdefault((run.condition, run.size), []).append(run)
    return [StudyCondition(name, size, tuple(members)) for (name, size), members in grouped.items()]


def looks_of(conditions: Sequence[StudyCondition]) -> Looks:
    """Return the looks of a page that has these conditions and no others."""
    return Looks([(condition.name, condition.size) for condition in conditions])


def estimate(quantity: str, values: Sequence[float]) -> Estimate:
    """Return the mean and interval over seeds of a quantity; NaN for no values.

    Args:
        quantity: its field's name: what is compared in factors has a geometric mean and an interval of factors.
    """
    if not values:
        return Estimate(math.nan, ())
    interval = over_seeds_of(quantity, values)
    return Estimate(interval.mean, tuple(values), interval.low, interval.high)


def averaged_curves(runs: Sequence[RunResult]) -> Mapping[int, list[tuple[float, ...]]]:
    """Return training points by step, one entry per run that logged that step."""
    points: dict[int, list[tuple[float, ...]]] = {}
    for run in runs:
        for point in run.training:
            points.setdefault(point.step, []).append(point.l2_norm)
    return dict(sorted(points.items()))


def mean_exit(per_loop: Sequence[LoopMetrics]) -> float:
    """Return bits per byte of a run, averaged over all exits."""
    return sum(entry.bits_per_byte for entry in per_loop) / len(per_loop)


RUNAWAY_SIZE, RUNAWAY_DRIFT = 10.0, 1.5
"""Runaway: at the last loop this many times the smallest condition's norm, and grown by this over loops."""


def runaways(conditions: Sequence[StudyCondition]) -> list[StudyCondition]:
    """Return the conditions whose scale grows from loop to loop and ends far above the smallest one's."""
    norms = [(c, c.per_loop("l2_norm")[-1].mean, drift_of(c).mean) for c in conditions if c.loops]
    smallest = min((norm for _, norm, _ in norms if math.isfinite(norm) and norm > 0), default=math.nan)
    return [c for c, norm, drift in norms if norm >= RUNAWAY_SIZE * smallest and drift >= RUNAWAY_DRIFT]


def drift_of(condition: StudyCondition) -> Estimate:
    """Return scale at the last loop over scale at the first."""
    return condition.of("drift", lambda run: run.drift)
