"""What depth does to every condition, in a table and in sentences."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.formatting import cell, signed
from loopscope.report.evaluations.groups import Group, best_loop
from loopscope.report.study.conditions import estimate
from loopscope.report.study.table import HeadlineTable, TableCell, estimate_cell, number
from loopscope.results import DepthVerdict, Interval
from loopscope.results.comparisons import seeds_disagree
from loopscope.results.student_t import SEEDS_NEEDED

WITHIN = 0.01
"""Of the best loop's perplexity: loops that are as good."""
_ORDER = ("helps", "holds", "unclear", "hurts")


def verdict_table(groups: Sequence[Group]) -> HeadlineTable | None:
    """Return the verdicts on depth, one row per condition that was judged; None where there is none."""
    judged = [(group, group.verdict) for group in groups if group.verdict]
    if not judged:
        return None
    headings = (
        ("", ("condition", "more loops", "seeds", "trained to")),
        ("loops", ("best", "first within 1 %", "last within 1 %")),
        ("bits per byte", ("at trained depth", "change to the deepest")),
    )
    return HeadlineTable(headings, tuple(_row(group, verdict) for group, verdict in judged))


def _row(group: Group, verdict: DepthVerdict) -> tuple[TableCell, ...]:
    return (
        TableCell(group.name, group.name),
        TableCell(verdict.beyond, _ORDER.index(verdict.beyond), badge=verdict.beyond),
        TableCell(str(verdict.seeds), verdict.seeds),
        TableCell(str(verdict.trained_loops), verdict.trained_loops),
        TableCell(verdict.best_loop, _sortable(verdict.best.mean)),
        _loop(verdict.first.mean),
        _loop(verdict.last.mean),
        _at_trained(group),
        cell(over_enough_seeds(verdict), plus=True),
    )


def over_enough_seeds(verdict: DepthVerdict) -> Interval:
    """Return the change past the trained depth; records of before have intervals of fewer than three seeds."""
    return verdict.change if verdict.seeds >= SEEDS_NEEDED else Interval(verdict.change.mean)


def _loop(mean: float) -> TableCell:
    """A loop; records of before hold means of loops over seeds, which are none."""
    return TableCell(f"{mean:.0f}" if mean % 1 == 0 else "", _sortable(mean))


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _at_trained(group: Group) -> TableCell:
    value = group.per_loop("bits_per_byte").get(group.trained)
    return TableCell("", math.inf) if value is None else estimate_cell(value)


def verdict_sentences(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return condition and sentence: the verdict's own, or what the curve shows where nothing was judged."""
    return [
        (group.name, group.verdict.why if group.verdict else curve_sentence(group))
        for group in groups
        if _has(group)
    ]


def _has(group: Group) -> bool:
    return group.verdict is not None or bool(group.per_loop("loss"))


def curve_sentence(group: Group) -> str:
    """Say what a curve shows without a verdict: best loop, the loops as good, the change past the trained depth."""
    losses, bits = group.per_loop("loss"), group.per_loop("bits_per_byte")
    best = best_loop(losses)
    if best is None:
        return "No loss is finite at any depth."
    good = as_good(group)
    reach = f"loop {good[0]}" if len(good) == 1 else f"loops {good[0]} to {good[-1]}"
    disagreement = seeds_disagree(_best_by_seed(group))
    found = f"Best loop: {disagreement}; by their mean loss loop" if disagreement else "Best at loop"
    text = f"{found} {best} ({number(bits[best].mean)} bits per byte); {reach} within 1 % of its perplexity."
    deepest = max(losses)
    if deepest > group.trained and group.trained in bits:
        change = bits[deepest].mean - bits[group.trained].mean
        text += (
            f" From loop {group.trained}, the trained one, to loop {deepest}: {signed(change)} bits per byte."
        )
    if (seeds := len(group.curves(group.reading))) < SEEDS_NEEDED:
        text += f" {'One seed' if seeds == 1 else f'{seeds} seeds'}: no interval."
    return text


def _best_by_seed(group: Group) -> list[int]:
    curves = [{e.loop: estimate("loss", [e.loss]) for e in c.per_loop} for c in group.curves(group.reading)]
    return [best for losses in curves if (best := best_loop(losses)) is not None]


def as_good(group: Group) -> list[int]:
    """Return the stretch of loops around the best whose perplexity is within 1 % of its."""
    losses = group.per_loop("loss")
    best = best_loop(losses)
    if best is None:
        return []
    most = losses[best].mean + math.log1p(WITHIN)
    first = last = best
    while first - 1 in losses and losses[first - 1].mean <= most:
        first -= 1
    while last + 1 in losses and losses[last + 1].mean <= most:
        last += 1
    return list(range(first, last + 1))


def depth_headline(groups: Sequence[Group]) -> str:
    """Return the sentence over the section's first figure."""
    judged = [group for group in groups if group.verdict]
    if judged:
        words = {
            "helps": "help",
            "holds": "neither help nor hurt",
            "hurts": "hurt",
            "unclear": "are unclear for",
        }
        parts = []
        for beyond in _ORDER:
            names = [group.name for group in judged if group.verdict and group.verdict.beyond == beyond]
            if names:
                parts.append(f"{words[beyond]} {_listed(names)}")
        return f"More loops than trained {'; '.join(parts)}."
    stretches = [(group, as_good(group)) for group in groups]
    stretches = [(group, good) for group, good in stretches if good]
    if len(stretches) == 1:
        group, good = stretches[0]
        reach = f"Loop {good[0]} is" if len(good) == 1 else f"Loops {good[0]} to {good[-1]} are"
        return f"{reach} worth running: within 1 % of the best perplexity. Trained to loop {group.trained}."
    return ""


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
