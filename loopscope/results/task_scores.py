"""Records of benchmarks by depth: what lm-evaluation-harness finds of one model at several numbers of loops.

`tasks.json` beside a run or a model holds one `TaskEvaluation`; a command that scores other tasks keeps these.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.results.evaluations import load_record
from loopscope.results.layout import TASKS
from loopscope.results.origin import Provenance
from loopscope.results.readable import Readable


@dataclass(frozen=True)
class TaskMetric:
    """One metric of a task, at each of the task's loops."""

    name: str  # acc, acc_norm, exact_match, word_perplexity, …
    filter: str  # what was done to answers before: none, strict-match, …
    higher_is_better: bool | None  # None: nothing says
    values: tuple[float, ...]
    errors: tuple[float | None, ...]  # standard errors over documents; None where the harness has none

    def best(self) -> int | None:
        """Return the place of the best finite value, the first of several; None where none is, or nothing says."""
        finite = [place for place, value in enumerate(self.values) if math.isfinite(value)]
        if not finite or self.higher_is_better is None:
            return None
        pick = max if self.higher_is_better else min
        return pick(finite, key=lambda place: self.values[place])


@dataclass(frozen=True)
class TaskScores:
    """One task, or a group over its tasks, at several depths of a model."""

    task: str
    kind: str  # the harness's output type; `group` for one over several tasks
    group: str | None  # that it belongs to
    loops: tuple[int, ...]
    metrics: tuple[TaskMetric, ...]
    documents: int  # that were scored
    of: int  # that the task has
    fewshot: int | None  # examples before every question; None of a group whose tasks differ
    version: str  # of the task
    one_unroll: bool  # whether every depth was scored from one unroll; False: from a run per depth
    cut: int  # requests whose context lost its beginning
    harness: str  # version of lm-evaluation-harness


@dataclass(frozen=True)
class TaskEvaluation(Readable):
    """What benchmarks say of one model at several depths."""

    name: str
    condition: str | None  # of a run
    size: str | None
    seed: int | None
    trained_loops: int
    parameters: int
    tokens_trained: int | None
    longest: int  # tokens that a request may have; what is longer is cut on its left
    tasks: tuple[TaskScores, ...]
    provenance: Provenance | None = None
    weights: str | None = None  # hash of the checkpoint; None where nobody keeps one
    fingerprint: str | None = None  # of a folder of transformers: which settings and weights

    def lines(self) -> list[str]:
        """Return where each task is best, and what it is at the trained depth."""
        return [f"{self.name}, trained to loop {self.trained_loops}."] + [
            sentence for scores in self.tasks if (sentence := best_sentence(scores, self.trained_loops))
        ]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per task, metric and loop."""
        return [
            {
                "task": scores.task,
                "metric": metric_name(metric),
                "loop": loop,
                "value": value,
                "standard error": error,
            }
            for scores in self.tasks
            for metric in scores.metrics
            for loop, value, error in zip(scores.loops, metric.values, metric.errors, strict=True)
        ]


def metric_name(metric: TaskMetric) -> str:
    """Return a metric's name, with its filter where that is one."""
    return metric.name if metric.filter in ("none", "") else f"{metric.name}, {metric.filter}"


def best_sentence(scores: TaskScores, trained: int) -> str:
    """Say at which loop a task's first metric is best, and what it is at the trained depth; nothing where none is."""
    for metric in scores.metrics[:1]:
        if (place := metric.best()) is None or len(scores.loops) < 2:
            return ""
        name, best = f"{scores.task}: {metric_name(metric)}", metric.values[place]
        if all(value == best for value in metric.values):
            return f"{name} is {_with_error(metric, place)} at every depth."
        at_trained = scores.loops.index(trained) if trained in scores.loops else None
        if at_trained is not None and metric.values[at_trained] == best:
            return f"{name} is best at the trained depth, {trained}: {_with_error(metric, at_trained)}."
        text = f"{name} is best at loop {scores.loops[place]}: {_with_error(metric, place)}"
        if at_trained is not None:
            text += f"; at the trained depth, {trained}, it is {_with_error(metric, at_trained)}"
        return f"{text}."
    return ""


def _with_error(metric: TaskMetric, place: int) -> str:
    error = metric.errors[place]
    return _number(metric.values[place], 4) + ("" if error is None else f" ± {_number(error, 2)}")


def _number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.{digits}g}"


def load_tasks(path: str | Path) -> TaskEvaluation | None:
    """Return the benchmarks in a run or model folder (or that file), or None where there are none yet.

    Raises:
        ValueError: a file that is not such a record.
    """
    return load_record(TaskEvaluation, Path(path), TASKS)
