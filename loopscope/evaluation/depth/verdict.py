"""How far a condition's depth reaches: the loops that are about as good as its best, and what more than trained do.

Over two seeds or more, intervals are Student's t over seeds. With one seed there is none over seeds: whether more loops
help then rests on a bootstrap over the windows of text, and the verdict says that it is one seed.
"""

import math
from collections.abc import Sequence

from loopscope.evaluation.compare.condition import Condition, depth_curve
from loopscope.evaluation.statistics.bootstrap import over_windows
from loopscope.results import Beyond, DepthVerdict, Interval, ModelEvaluation
from loopscope.results.student_t import over_seeds

NEAR = 1.01
"""A loop is as good as the best where its perplexity is at most this many times the best one's."""


def depth_verdict(condition: Condition) -> DepthVerdict:
    """Judge how far one condition's depth reaches, over its seeds.

    `first` and `last` bound the unbroken stretch around the best loop in which perplexity stays within 1 % of the best.
    `beyond` compares the deepest loop with the trained depth, seed by seed. The interval of the change in bits per byte
    decides: within ±1 % of perplexity it `holds`; else below 0 it `helps`, above 0 it `hurts`; else it is `unclear`.
    """
    stretches = [stretch(evaluation) for evaluation in condition.evaluations]
    best, first, last = (
        _within(over_seeds([float(entry[index]) for entry in stretches]), condition.loops)
        for index in range(3)
    )
    deepest, trained = condition.loops, condition.trained_loops
    change = _change(condition, deepest)
    tolerance = math.log(NEAR) / math.log(2) / condition.bytes_per_token
    beyond = judge_change(change, tolerance) if deepest > trained else "unclear"
    return DepthVerdict(
        condition=condition.name,
        trained_loops=trained,
        seeds=len(condition.seeds),
        best=best,
        first=first,
        last=last,
        beyond=beyond,
        change=change,
        why=_why(condition, beyond, (best, first, last), change),
    )


def stretch(evaluation: ModelEvaluation) -> tuple[int, int, int]:
    """Return the best loop, and the first and last of the unbroken stretch around it within 1 % of its perplexity."""
    losses = [
        entry.loss if math.isfinite(entry.loss) else math.inf for entry in depth_curve(evaluation).per_loop
    ]
    best = losses.index(min(losses))
    allowed = losses[best] + math.log(NEAR)
    first = last = best
    while first > 0 and losses[first - 1] <= allowed:
        first -= 1
    while last + 1 < len(losses) and losses[last + 1] <= allowed:
        last += 1
    return best + 1, first + 1, last + 1


def judge_change(change: Interval, tolerance: float) -> Beyond:
    """Say what an interval of the change in bits per byte tells of more loops than trained.

    Args:
        tolerance: bits per byte that count as no change.
    """
    if not math.isfinite(change.mean):
        return "helps" if change.mean == -math.inf else "hurts"
    if change.low is None or change.high is None:
        return "unclear"
    if -tolerance <= change.low and change.high <= tolerance:
        return "holds"
    if change.high < 0:
        return "helps"
    return "hurts" if change.low > 0 else "unclear"


def _change(condition: Condition, deepest: int) -> Interval:
    trained = min(condition.trained_loops, deepest)
    if deepest <= condition.trained_loops:
        return Interval(0.0)
    if len(condition.seeds) > 1:
        pairs = zip(condition.bits_per_byte(deepest), condition.bits_per_byte(trained), strict=True)
        return over_seeds([deep - shallow for deep, shallow in pairs])
    windows = (condition.windows(deepest) - condition.windows(trained))[0]
    weights = condition.weights()
    if weights is not None:
        windows, weights = windows[weights > 0], weights[weights > 0]
    return over_windows(windows, weights)


def _why(condition: Condition, beyond: Beyond, bounds: Sequence[Interval], change: Interval) -> str:
    best, first, last = (round(bound.mean, 1) for bound in bounds)
    deepest, trained, seeds = condition.loops, condition.trained_loops, len(condition.seeds)
    mean = "" if seeds == 1 else " on average"
    reach = f"Loop {best:g} is best{mean}; "
    reach += (
        "no other is within 1 % of its perplexity"
        if first == last
        else f"perplexity stays within 1 % of it from loop {first:g} to {last:g}"
    )
    reach += ", the deepest measured. " if last == deepest else ". "
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
    interval = "" if change.low is None else f" (95 %: {change.low:+.4f} to {change.high:+.4f})"
    return (
        f"{reach}Going from the trained depth {trained} to {deepest} {says}: {change.mean:+.4f} {condition.unit}"
        f"{interval}. {_basis(seeds)}"
    )


def _basis(seeds: int) -> str:
    if seeds == 1:
        return "One seed: its interval is over windows of text, and says nothing of another seed."
    return f"{seeds} seeds; intervals are over seeds."


def _within(interval: Interval, deepest: int) -> Interval:
    """An interval of loops, cut to loops that there are."""
    if interval.low is None or interval.high is None:
        return interval
    return Interval(interval.mean, max(1.0, interval.low), min(float(deepest), interval.high))
