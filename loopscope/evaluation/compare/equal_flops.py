"""Who is ahead at equal FLOPs: the best of every condition, at any depth, within an amount of arithmetic.

Amounts are FLOPs per byte of text: conditions may have tokens of different lengths. Only amounts at which the best, or
the best of the other conditions, changes are listed; between two of them the first holds.
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
    if len({option.condition for option in options if _cost(option) is not None}) < 2:
        return ()
    counted = [
        option for option in options if _cost(option) is not None and math.isfinite(option.bits_per_byte.mean)
    ]
    found: list[EqualFlops] = []
    shown: tuple[Option, Option | None] | None = None
    for amount in sorted({_amount(option) for option in counted}):
        within = [option for option in counted if _amount(option) <= amount]
        best = min(within, key=_rank)
        others = [option for option in within if option.condition != best.condition]
        second = min(others, key=_rank, default=None)
        if shown == (best, second):
            continue
        shown = best, second
        behind = None
        if second is not None:
            pair = of[best.condition], best.loops, of[second.condition], second.loops
            behind = paired_difference(*pair).difference.interval
        found.append(
            EqualFlops(
                flops_per_byte=amount,
                condition=best.condition,
                loops=best.loops,
                bits_per_byte=best.bits_per_byte,
                second=None if second is None else second.condition,
                second_loops=None if second is None else second.loops,
                behind=behind,
            )
        )
    return tuple(found)


def _rank(option: Option) -> tuple[float, float]:
    """The fewest bits, and of as many the cheapest."""
    return option.bits_per_byte.mean, _amount(option)


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
        parts.append(f"{name} from {stretch[0].flops_per_byte:.2g} on ({spans({e.loops for e in stretch})})")
    if len(parts) == 1:
        name = entries[0].condition
        met = next((entry for entry in entries if entry.second is not None), entries[0])
        alone = "" if met is entries[0] else f"; no other runs on less than {met.flops_per_byte:.2g}"
        return (
            f"At equal FLOPs per {per}, {name} is ahead at every amount from {entries[0].flops_per_byte:.2g} on "
            f"({spans({entry.loops for entry in entries})}), by its mean{alone}.",
        )
    return (f"At equal FLOPs per {per}, ahead by their means are {'; then '.join(parts)}.",)
