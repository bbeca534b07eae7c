"""Who is ahead at equal FLOPs: the best of every condition, at any depth, within an amount of arithmetic.

Amounts are FLOPs per byte of text: conditions may have tokens of different lengths. Only amounts at which the best
changes are listed; between two of them the first holds.
"""

import math
from collections.abc import Sequence
from itertools import groupby

from loopscope.evaluation.compare.condition import Condition
from loopscope.evaluation.compare.differences import paired_difference
from loopscope.evaluation.compare.sentences import spans
from loopscope.results import EqualFlops, Option


def equal_flops(conditions: Sequence[Condition], options: Sequence[Option]) -> tuple[EqualFlops, ...]:
    """Return, from the smallest amount up, which condition is best within it, and the best other one beside it.

    Differences are the other's minus the best one's, paired as all are, with an interval of their own: they are chosen
    for being close to a front, and no p-value is made of them.

    Args:
        options: the Pareto table of these conditions.
    """
    of = {condition.name: condition for condition in conditions}
    counted = [option for option in options if _cost(option) is not None]
    if len({option.condition for option in counted}) < 2:
        return ()
    found = []
    for best in sorted((option for option in counted if option.best_for_flops), key=_amount):
        others = [
            option
            for option in counted
            if option.condition != best.condition
            and _amount(option) <= _amount(best)
            and math.isfinite(option.bits_per_byte.mean)
        ]
        second = min(others, key=lambda option: option.bits_per_byte.mean, default=None)
        behind = None
        if second is not None:
            pair = of[best.condition], best.loops, of[second.condition], second.loops
            behind = paired_difference(*pair).difference.interval
        found.append(
            EqualFlops(
                flops_per_byte=_amount(best),
                condition=best.condition,
                loops=best.loops,
                bits_per_byte=best.bits_per_byte,
                second=None if second is None else second.condition,
                second_loops=None if second is None else second.loops,
                behind=behind,
            )
        )
    return tuple(found)


def _cost(option: Option) -> float | None:
    cost = option.flops_per_byte
    return cost if cost is not None and math.isfinite(cost) else None


def _amount(option: Option) -> float:
    cost = _cost(option)
    return math.inf if cost is None else cost


def equal_flops_sentence(entries: Sequence[EqualFlops], per: str) -> tuple[str, ...]:
    """Say who is ahead from which amount on, in one sentence; nothing where nothing was counted.

    Args:
        per: what amounts are per: `byte of text`, or `token`.
    """
    if not entries:
        return ()
    parts = []
    for name, group in groupby(entries, key=lambda entry: entry.condition):
        stretch = list(group)
        parts.append(f"{name} from {stretch[0].flops_per_byte:.2g} on ({spans(e.loops for e in stretch)})")
    if len(parts) == 1:
        name = entries[0].condition
        return (
            f"At equal FLOPs per {per}, {name} is ahead at every amount from {entries[0].flops_per_byte:.2g} on "
            f"({spans(entry.loops for entry in entries)}), by its mean.",
        )
    return (f"At equal FLOPs per {per}, ahead by their means are {'; then '.join(parts)}.",)
