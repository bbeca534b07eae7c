"""What the harness found at every depth, as records: tasks and groups, each metric over the depths."""

import math
from collections.abc import Mapping
from typing import Any

from loopscope.results import TaskMetric, TaskScores


def task_scores(
    found: Mapping[int, Mapping[str, Any]],
    kinds: Mapping[str, str],
    cut: Mapping[str, int],
    one_unroll: bool,
    harness: str,
) -> tuple[TaskScores, ...]:
    """Return the record of every task and group.

    Args:
        found: by depth, what the harness's `evaluate` returned.
        kinds: output type of every task.
        cut: requests whose context lost its beginning, by task.
        one_unroll: whether likelihoods at every depth came from one unroll.
        harness: its version.
    """
    loops = tuple(sorted(found))
    first = found[loops[0]]
    groups = {child: group for group, children in first["group_subtasks"].items() for child in children}
    made = []
    for name, values in first["results"].items():
        metrics = tuple(
            _metric(key, name, found, loops, first["higher_is_better"].get(name) or {})
            for key, value in values.items()
            if _is_metric(key, value)
        )
        if not metrics:
            continue  # a group without a mean over its tasks
        counts = first.get("n-samples", {}).get(name, {})
        documents = int(counts.get("effective", values.get("sample_len", 0)))
        fewshot = first.get("n-shot", {}).get(name)
        made.append(
            TaskScores(
                task=name,
                kind=kinds.get(name, "group"),
                group=groups.get(name),
                loops=loops,
                metrics=metrics,
                documents=documents,
                of=int(counts.get("original", documents)),
                fewshot=fewshot if isinstance(fewshot, int) else None,
                version=str(first.get("versions", {}).get(name, "")),
                one_unroll=one_unroll and kinds.get(name) != "generate_until",
                cut=cut.get(name, 0),
                harness=harness,
            )
        )
    return tuple(made)


def _is_metric(key: str, value: Any) -> bool:
    name, comma, _ = key.partition(",")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return bool(comma) and not name.endswith("_stderr") and (number or hasattr(value, "__float__"))


def _metric(
    key: str,
    task: str,
    found: Mapping[int, Mapping[str, Any]],
    loops: tuple[int, ...],
    better: Mapping[str, Any],
) -> TaskMetric:
    name, _, by = key.partition(",")
    results = [found[loop]["results"][task] for loop in loops]
    direction = better.get(name)
    return TaskMetric(
        name=name,
        filter=by,
        higher_is_better=direction if isinstance(direction, bool) else None,
        values=tuple(float(values[key]) for values in results),
        errors=tuple(_error(values.get(f"{name}_stderr,{by}")) for values in results),
    )


def _error(value: Any) -> float | None:
    """A standard error; the harness writes N/A where it has none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
