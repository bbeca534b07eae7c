"""Benchmarks at every depth that they were scored at: a curve per task, with standard errors, and one table of all."""

import math
from collections.abc import Iterable, Sequence

from loopscope.report.looks import ConditionStyle, Looks
from loopscope.report.plots.figure import Figure, Mark, Series, span_of_lines, spans_decades
from loopscope.report.study.table import HeadlineTable, TableCell, figures
from loopscope.results import TaskEvaluation, TaskMetric, TaskScores
from loopscope.results.task_scores import best_sentence, metric_name

MOST_TASKS = 6
"""Tasks that are drawn: more are in the table alone."""
_LINEAR = 10.0
"""Largest over smallest value up to which an axis stays linear."""


def task_figures(models: Sequence[TaskEvaluation], looks: Looks) -> list[Figure]:
    """Draw the first metric of every task that is in no group, and of every group, one figure each."""
    named: dict[tuple[str, str], list[tuple[TaskEvaluation, TaskScores]]] = {}
    for model in models:
        for scores in model.tasks:
            if scores.group is None and scores.metrics:
                named.setdefault((scores.task, metric_name(scores.metrics[0])), []).append((model, scores))
    return [
        _figure(number, task, metric, found, looks)
        for number, ((task, metric), found) in enumerate(list(named.items())[:MOST_TASKS], start=1)
    ]


def _figure(
    number: int, task: str, metric: str, found: Sequence[tuple[TaskEvaluation, TaskScores]], looks: Looks
) -> Figure:
    seen: set[str] = set()
    log = spans_decades([value for _, scores in found for value in scores.metrics[0].values], _LINEAR)
    series = []
    for model, scores in found:
        look = looks.of(model.condition or model.name, model.size)
        points = _points(scores.metrics[0], scores.loops)
        if not points:
            continue
        series.append(_line(look, points, log, in_legend=look.name not in seen))
        seen.add(look.name)
    better = found[0][1].metrics[0].higher_is_better
    says = {True: "More is better.", False: "Less is better.", None: ""}[better]
    bars = any(entry.low for entry in series)
    y_range, cut = span_of_lines(series, log) if log else (None, False)
    depths = sorted({model.trained_loops for model, _ in found})
    return Figure(
        key=f"evaluation-task-{number}",
        title=f"{task} at every depth",
        caption=" ".join(
            [f"{metric} of {_documents(scores for _, scores in found)}.", says]
            + (["Bars: one standard error over documents, to either side."] if bars else [])
            + (["Wide ones are cut."] if cut else [])
        ),
        x_label="loop",
        y_label=metric,
        series=tuple(series),
        log_y=log,
        y_range=y_range,
        whole_x=True,
        marks=tuple(
            Mark("x", float(depth), f"trained to loop {depth}" if len(depths) == 1 else "")
            for depth in depths
        )
        if series
        else (),
    )


def _line(
    look: ConditionStyle, points: Sequence[tuple[float, float, float]], log: bool, in_legend: bool
) -> Series:
    bars = any(error for _, _, error in points)
    # A log axis has no place for zero: a low end there stops just above it.
    low = tuple(max(y - error, y * 1e-3) if log else y - error for _, y, error in points)
    return Series(
        look.name,
        tuple(x for x, _, _ in points),
        tuple(y for _, y, _ in points),
        look.color,
        look.dash,
        low=low if bars else (),
        high=tuple(y + error for _, y, error in points) if bars else (),
        bars="y" if bars else "",
        in_legend=in_legend,
    )


def _points(metric: TaskMetric, loops: Sequence[int]) -> list[tuple[float, float, float]]:
    """Loop, value, standard error (0 where there is none), where the value is finite."""
    return [
        (float(loop), value, error or 0.0)
        for loop, value, error in zip(loops, metric.values, metric.errors, strict=True)
        if math.isfinite(value)
    ]


def _documents(found: Iterable[TaskScores]) -> str:
    counts = sorted({scores.documents for scores in found})
    return f"{' or '.join(f'{count:,}' for count in counts)} documents"


def task_table(models: Sequence[TaskEvaluation], looks: Looks) -> HeadlineTable | None:
    """Return every model's tasks and metrics, one row each, by loop; None where nothing was scored."""
    loops = sorted({loop for model in models for scores in model.tasks for loop in scores.loops})
    rows = tuple(
        (
            TableCell(name, name),
            TableCell(scores.task, scores.task),
            TableCell(metric_name(metric), metric_name(metric)),
            TableCell(f"{scores.documents:,}", scores.documents),
            *_cells(metric, scores.loops, loops),
        )
        for model in models
        for name in [_name(model, models, looks)]
        for scores in model.tasks
        for metric in scores.metrics
    )
    headings = (
        ("", ("condition", "task", "metric", "documents")),
        ("loops run", tuple(f"loop {loop}" for loop in loops)),
    )
    return HeadlineTable(headings, rows) if rows else None


def _cells(metric: TaskMetric, own: Sequence[int], loops: Sequence[int]) -> list[TableCell]:
    found = dict(zip(own, zip(metric.values, metric.errors, strict=True), strict=True))
    best = metric.best()
    cells = []
    for loop in loops:
        if loop not in found:
            cells.append(TableCell("", math.inf))
            continue
        value, error = found[loop]
        cells.append(
            TableCell(
                figures(value),
                value if math.isfinite(value) else math.inf,
                "best" if best is not None and own[best] == loop and len(own) > 1 else "",
                "" if error is None else f"± {figures(error)}",
            )
        )
    return cells


def task_sentences(models: Sequence[TaskEvaluation], looks: Looks) -> list[tuple[str, str]]:
    """Return condition and sentence: where each task is best; and how many requests were cut."""
    said = []
    for model in models:
        name = _name(model, models, looks)
        for scores in model.tasks:
            if scores.group is None and (sentence := best_sentence(scores, model.trained_loops)):
                said.append((name, sentence))
            if scores.cut:
                said.append(
                    (
                        name,
                        f"{scores.task}: {scores.cut:,} requests are longer than the {model.longest:,} tokens that are "
                        "read, and lost the beginning of their context.",
                    )
                )
    return said


def _name(model: TaskEvaluation, models: Sequence[TaskEvaluation], looks: Looks) -> str:
    """A condition's name on the page, with the seed where several have it."""
    name = looks.of(model.condition or model.name, model.size).name
    alike = [other for other in models if (other.condition, other.size) == (model.condition, model.size)]
    return name if len(alike) == 1 or model.seed is None else f"{name}, seed {model.seed}"
