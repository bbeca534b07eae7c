"""How far a condition's depth reaches: the loops that are about as good as its best, and what more than trained do.

A best loop is a whole number: that of the mean loss over seeds, beside the best loop of every seed, which may disagree.
Intervals are Student's t over seeds, and there is none from fewer than three. Whether more loops help then rests on a
bootstrap over the windows of text, which the verdict says in words: it holds for these models, not for another seed.
"""

import math
from collections.abc import Sequence

from loopscope.evaluation.compare.condition import Condition, depth_curve
from loopscope.evaluation.statistics.bootstrap import over_windows
from loopscope.results import Beyond, DepthVerdict, Interval
from loopscope.results.comparisons import seeds_disagree
from loopscope.results.student_t import SEEDS_NEEDED, over_seeds

NEAR = 1.01
"""A loop is as good as the best where its perplexity is at most this many times the best one's."""


def depth_verdict(condition: Condition) -> DepthVerdict:
    """Judge how far one condition's depth reaches, over its seeds.

    `first` and `last` bound the unbroken stretch around the best loop in which perplexity, its loss a mean over seeds,
    stays within 1 % of the best. `beyond` compares the deepest loop with the trained depth, seed by seed. The interval
    of the change in bits per byte decides: within ±1 % of perplexity it `holds`; else below 0 it `helps`, above 0 it
    `hurts`. Where it has both signs, three or more seeds that all changed one way by more than that decide; else it is
    `unclear`.
    """
    losses = [_losses(condition, loop) for loop in range(1, condition.loops + 1)]
    bounds = stretch([sum(seeds) / len(seeds) for seeds in losses])
    by_seed = [stretch(seed) for seed in zip(*losses, strict=True)]
    best_by_seed = tuple(found[0] for found in by_seed if found)
    deepest, trained = condition.loops, condition.trained_loops
    by_seed_changes = _changes(condition, deepest)
    change, judged = _change(condition, deepest, by_seed_changes)
    tolerance = math.log(NEAR) / math.log(2) / condition.bytes_per_token
    beyond = judge_change(judged, tolerance, by_seed_changes) if deepest > trained and bounds else "unclear"
    best, first, last = map(Interval, map(float, bounds or (math.nan,) * 3))
    return DepthVerdict(
        condition=condition.name,
        trained_loops=trained,
        seeds=len(condition.seeds),
        best=best,
        first=first,
        last=last,
        beyond=beyond,
        change=change,
        why=_why(condition, beyond, bounds, best_by_seed, judged, by_seed_changes),
        best_by_seed=best_by_seed,
    )


def stretch(losses: Sequence[float]) -> tuple[int, int, int] | None:
    """Return the best loop, and the first and last of the unbroken stretch around it within 1 % of its perplexity.

    Args:
        losses: mean cross-entropy at loop 1, 2, …; None comes back where none of them is finite.
    """
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    if min(finite) == math.inf:
        return None
    best = finite.index(min(finite))
    allowed = finite[best] + math.log(NEAR)
    first = last = best
    while first > 0 and finite[first - 1] <= allowed:
        first -= 1
    while last + 1 < len(finite) and finite[last + 1] <= allowed:
        last += 1
    return best + 1, first + 1, last + 1


def judge_change(change: Interval, tolerance: float, by_seed: Sequence[float] = ()) -> Beyond:
    """Say what an interval of the change in bits per byte tells of more loops than trained.

    Args:
        tolerance: bits per byte that count as no change.
        by_seed: every seed's change. A few that differ by orders of magnitude have an interval of both signs, also
            where all of them are on one side.
    """
    if not math.isfinite(change.mean):
        return "helps" if change.mean == -math.inf else "hurts"
    if change.low is None or change.high is None:
        return "unclear"
    if -tolerance <= change.low and change.high <= tolerance:
        return "holds"
    if change.high < 0:
        return "helps"
    return "hurts" if change.low > 0 else _shared_side(by_seed, tolerance)


def _shared_side(by_seed: Sequence[float], tolerance: float) -> Beyond:
    if len(by_seed) >= SEEDS_NEEDED and min(by_seed) > tolerance:
        return "hurts"
    return "helps" if len(by_seed) >= SEEDS_NEEDED and max(by_seed) < -tolerance else "unclear"


def _changes(condition: Condition, deepest: int) -> list[float]:
    """Every seed's change in bits per byte from the trained depth to the deepest loop."""
    trained = min(condition.trained_loops, deepest)
    pairs = zip(condition.bits_per_byte(deepest), condition.bits_per_byte(trained), strict=True)
    return [deep - shallow for deep, shallow in pairs]


def _losses(condition: Condition, loop: int) -> list[float]:
    """Every seed's loss at one loop; infinite where it is not finite."""
    losses = [depth_curve(evaluation).per_loop[loop - 1].loss for evaluation in condition.evaluations]
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


def _change(condition: Condition, deepest: int, by_seed: Sequence[float]) -> tuple[Interval, Interval]:
    """The change past the trained depth as the record has it, and with the interval that judges it."""
    trained = min(condition.trained_loops, deepest)
    if deepest <= condition.trained_loops:
        return Interval(0.0), Interval(0.0)
    change = over_seeds(list(by_seed))
    if len(condition.seeds) >= SEEDS_NEEDED:
        return change, change
    windows = (condition.windows(deepest) - condition.windows(trained)).mean(axis=0)
    weights = condition.weights()
    if weights is not None:
        windows, weights = windows[weights > 0], weights[weights > 0]
    judged = over_windows(windows, weights)
    return Interval(judged.mean), judged


def _why(
    condition: Condition,
    beyond: Beyond,
    bounds: tuple[int, int, int] | None,
    best_by_seed: Sequence[int],
    change: Interval,
    by_seed: Sequence[float],
) -> str:
    deepest, trained, seeds = condition.loops, condition.trained_loops, len(condition.seeds)
    if bounds is None:
        return f"No loop has a finite loss in every seed, so there is no best one. {_basis(seeds)}"
    reach = _reach(bounds, best_by_seed, deepest)
    if deepest <= trained:
        return f"{reach}Nothing past the trained depth {trained} was measured: name more --loops. {_basis(seeds)}"
    if not math.isfinite(change.mean):
        where = trained if change.mean == -math.inf else deepest
        return f"{reach}At loop {where} the loss of a seed is not finite. {_basis(seeds)}"
    says = {
        "helps": "lowers the loss",
        "holds": "changes perplexity by less than 1 %",
        "hurts": "raises the loss",
        "unclear": "may help or hurt: the interval has both",
    }[beyond]
    both_signs = change.low is not None and change.high is not None and change.low <= 0 <= change.high
    if both_signs and beyond in ("helps", "hurts"):
        least, most = sorted(by_seed, key=abs)[:: len(by_seed) - 1]
        says += (
            f" in every seed, from {least:+.4f} to {most:+.4f}; by how much in another one they do not say"
        )
    over = "" if seeds >= SEEDS_NEEDED else " over windows of this text"
    interval = "" if change.low is None else f" (95 %{over}: {change.low:+.4f} to {change.high:+.4f})"
    return (
        f"{reach}Going from the trained depth {trained} to {deepest} {says}: {change.mean:+.4f} {condition.unit}"
        f"{interval}. {_basis(seeds)}"
    )


def _reach(bounds: tuple[int, int, int], best_by_seed: Sequence[int], deepest: int) -> str:
    """Say which loop is best and which are as good, or that the seeds disagree."""
    best, first, last = bounds
    if disagreement := seeds_disagree(best_by_seed):
        loops = (
            f"loop {best} is best" if first == last else f"loops {first} to {last} are within 1 % of the best"
        )
        reach = f"Best loop: {disagreement}. By their mean loss, {loops}"
    elif first == last:
        reach = f"Loop {best} is best; no other is within 1 % of its perplexity"
    else:
        reach = f"Loop {best} is best; perplexity stays within 1 % of it from loop {first} to {last}"
    return reach + (", the deepest measured. " if last == deepest else ". ")


def _basis(seeds: int) -> str:
    if seeds >= SEEDS_NEEDED:
        return f"{seeds} seeds; intervals are over seeds."
    number = "One seed" if seeds == 1 else f"{seeds} seeds"
    return f"{number}, too few for an interval over seeds: this says nothing of another seed."
