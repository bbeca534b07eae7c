"""What the figures say, in plain sentences computed from the results."""

import math
from collections.abc import Sequence

from loopscope.report.looks import Looks
from loopscope.report.study.conditions import RUNAWAY_SIZE, StudyCondition, looks_of, runaways
from loopscope.results.student_t import SEEDS_NEEDED

USELESS = 3.0
"""A first exit whose perplexity is this many times the last one's is called useless."""


def findings(conditions: Sequence[StudyCondition], looks: Looks | None = None) -> list[str]:
    """Return the sentences about the runs that head a report, most important first.

    Args:
        looks: those of the page; by default of a page that has nothing else.
    """
    looks = looks or looks_of(conditions)
    names = {id(condition): looks.of(condition.name, condition.size).name for condition in conditions}
    completed = [condition for condition in conditions if condition.completed]
    ended = [run for condition in conditions for run in condition.runs if run.status != "completed"]
    if not completed:
        return [f"No run completed: {len(ended)} ended early." if ended else "No runs yet."]
    sentences = []
    norms = {id(c): c.per_loop("l2_norm")[-1].mean for c in completed}
    finite = [c for c in completed if math.isfinite(norms[id(c)]) and norms[id(c)] > 0]
    if len(finite) > 1:
        low, high = min(finite, key=lambda c: norms[id(c)]), max(finite, key=lambda c: norms[id(c)])
        apart = norms[id(high)] / norms[id(low)]
        sentences.append(
            f"At the last loop the hidden state of {names[id(high)]} is {_times(apart)} the size of that of "
            f"{names[id(low)]} (L2 norm {_figure(norms[id(high)])} against {_figure(norms[id(low)])})."
        )
        if over := [names[id(condition)] for condition in runaways(completed)]:
            sentences.append(
                f"Grows from loop to loop and ends at {RUNAWAY_SIZE:.0f} or more times the smallest: "
                f"{', '.join(over)}."
            )
    elif finite:
        only = finite[0]
        first = only.per_loop("l2_norm")[0].mean
        sentences.append(
            f"The hidden state of {names[id(only)]} goes from L2 norm {_figure(first)} at loop 1 to "
            f"{_figure(norms[id(only)])} at loop {only.loops}."
        )
    useless = []
    for condition in completed:
        perplexity = condition.per_loop("perplexity")
        ratio = perplexity[0].mean / perplexity[-1].mean
        if not math.isfinite(ratio) or ratio >= USELESS:
            factor = _times(ratio) if math.isfinite(ratio) else "far beyond"
            useless.append(f"{names[id(condition)]} ({factor} its last)")
    if useless:
        sentences.append(f"First exits of little use, by perplexity: {', '.join(useless)}.")
    if ended:
        sentences.append(
            f"{len(ended)} of {sum(len(c.runs) for c in conditions)} runs ended early; see below."
        )
    if all(len(condition.completed) < SEEDS_NEEDED for condition in completed):
        sentences.append(f"Fewer than {SEEDS_NEEDED} seeds each: directions, not rankings.")
    return sentences


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
