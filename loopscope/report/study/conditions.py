"""Seeds to means and intervals: what a report says about a condition.

The interval is Student's t over seeds, 95 %, two-sided. One seed has none, and the page says so.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loopscope.results import LoopMetrics, RunResult

# 97.5 % quantiles of Student's t by degrees of freedom (any table of the distribution); 1.96 beyond.
_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
_T_MORE = {20: 2.086, 30: 2.042, 60: 2.000}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its half-width; `half` is None for one seed."""

    mean: float
    half: float | None
    values: tuple[float, ...]

    @property
    def low(self) -> float:
        """Lower end of the interval (the mean itself for one seed)."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + (self.half or 0.0)


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
                [getattr(run.per_loop[loop], field) for run in self.completed if loop < len(run.per_loop)]
            )
            for loop in range(self.loops)
        ]

    def of(self, figure: Callable[[RunResult], float | None]) -> Estimate:
        """Return an estimate of any figure of a run, over the condition's seeds."""
        values = [figure(run) for run in self.completed]
        return estimate([value for value in values if value is not None])


def group_runs(runs: Sequence[RunResult]) -> list[StudyCondition]:
    """Group runs into conditions in order of appearance; the same condition at another size is another one."""
    grouped: dict[tuple[str, str], list[RunResult]] = {}
    for run in runs:
        grouped.setdefault((run.condition, run.size), []).append(run)
    return [StudyCondition(name, size, tuple(members)) for (name, size), members in grouped.items()]


def labels(conditions: Sequence[StudyCondition]) -> list[str]:
    """Return the names to show: with the size only where one name stands for several."""
    names = [condition.name for condition in conditions]
    return [f"{c.name} ({c.size})" if names.count(c.name) > 1 else c.name for c in conditions]


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and its 95 % interval; NaN for no values. A value that is not finite makes the mean so too."""
    count = len(values)
    if count == 0:
        return Estimate(math.nan, None, ())
    mean = sum(values) / count
    if count == 1 or not math.isfinite(mean):
        return Estimate(mean, None, tuple(values))
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return Estimate(mean, student_t(count - 1) * deviation / math.sqrt(count), tuple(values))


def student_t(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t for so many degrees of freedom.

    Rounded up to the next tabulated number of degrees below.
    """
    if degrees <= len(_T):
        return _T[degrees - 1]
    return (
        _T_MORE[max((known for known in _T_MORE if known <= degrees), default=20)]
        if degrees >= 20
        else _T[-1]
    )


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
    norms = [
        (c, c.per_loop("l2_norm")[-1].mean, c.of(lambda run: run.drift).mean) for c in conditions if c.loops
    ]
    smallest = min((norm for _, norm, _ in norms if math.isfinite(norm) and norm > 0), default=math.nan)
    return [c for c, norm, drift in norms if norm >= RUNAWAY_SIZE * smallest and drift >= RUNAWAY_DRIFT]
