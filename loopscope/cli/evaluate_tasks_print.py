"""Benchmarks by depth on a terminal, and how far their requests are."""

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.text import Text

from loopscope.cli.evaluate_depth_print import new_table, say, short_number
from loopscope.cli.output import output
from loopscope.results import TaskEvaluation, TaskMetric, TaskScores
from loopscope.results.task_scores import best_sentence, metric_name

EVERY = 15.0
"""Seconds between lines where standard error is no terminal: what is quick says nothing."""


def print_tasks(evaluation: TaskEvaluation, console: Console | None = None) -> None:
    """One table: tasks and metrics down, loops across, each value with its standard error below it."""
    console = console or output()
    console.print(Text(evaluation.name, "bold"))
    loops = sorted({loop for scores in evaluation.tasks for loop in scores.loops})
    headings = [f"{loop}{' ◂' if loop == evaluation.trained_loops else ''}" for loop in loops]
    table = new_table(["task, at loop", "metric", *headings], left=2)
    for scores in evaluation.tasks:
        for number, metric in enumerate(scores.metrics):
            cells = dict(zip(scores.loops, _cells(metric), strict=True))
            arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
            table.add_row(
                scores.task if number == 0 else "",
                f"{metric_name(metric)}{arrow}",
                *(cells.get(loop, "") for loop in loops),
            )
    console.print(table)
    for scores in evaluation.tasks:
        if sentence := best_sentence(scores, evaluation.trained_loops):
            say(console, f"• {sentence}")
    say(console, _footing(evaluation))
    console.print()


def _cells(metric: TaskMetric) -> list[Text]:
    best = metric.best()
    return [
        Text(
            (short_number(value) if math.isfinite(value) else "not finite")
            + ("" if error is None else f"\n±{error:.2g}"),
            "bold" if place == best else "",
        )
        for place, (value, error) in enumerate(zip(metric.values, metric.errors, strict=True))
    ]


def _footing(evaluation: TaskEvaluation) -> str:
    tasks = [scores for scores in evaluation.tasks if scores.kind != "group"]
    listed = "; ".join(f"{scores.task} {_documents(scores)}" for scores in tasks)
    unrolled = [scores for scores in tasks if scores.kind != "generate_until"]
    ways = []
    if any(scores.one_unroll for scores in unrolled):
        ways.append("likelihoods of all depths from one unroll")
    if any(not scores.one_unroll for scores in unrolled):
        ways.append("likelihoods from a run per depth, because this model's exits on the way are others")
    if any(scores.kind == "generate_until" for scores in tasks):
        ways.append("text written at each depth")
    marked = any(evaluation.trained_loops in scores.loops for scores in evaluation.tasks)
    return (
        f"{'◂ the trained depth. ' if marked else ''}±: standard error over documents ({listed}). "
        f"lm-evaluation-harness {tasks[0].harness if tasks else ''}: {'; '.join(ways)}."
    )


def _documents(scores: TaskScores) -> str:
    """How many documents, after how many examples."""
    of = f" of {scores.of:,}" if scores.of != scores.documents else ""
    shots = f", {scores.fewshot}-shot" if scores.fewshot else ""
    return f"{scores.documents:,}{of}{shots}"


class CountedRequests:
    """Says on standard error how many requests are done: in one line of a terminal, now and then in a log.

    Args:
        name: of the model.
    """

    def __init__(self, name: str) -> None:
        self.name, self.stream = name, sys.stderr  # which is put elsewhere while the harness runs
        self.due = time.monotonic() + EVERY
        self.width = 0

    def __enter__(self) -> "CountedRequests":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()

    def show(self, what: str, done: int, of: int) -> None:
        """Say what is being done, how many requests are done, and of how many."""
        line = f"{self.name}: {what}, {done:,} of {of:,}"
        if self.stream.isatty():
            self.stream.write("\r" + line.ljust(self.width))
            self.width = len(line)
            self.stream.flush()
        elif time.monotonic() >= self.due:
            self.due = time.monotonic() + EVERY
            print(line, file=self.stream, flush=True)
