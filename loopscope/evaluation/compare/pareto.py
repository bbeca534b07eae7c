"""Quality against loops, FLOPs and time: every condition at every depth, and which of them nothing beats.

An option is on a front where no other has no more bits per byte at no more cost, and less of one of them. Fronts are
of means: whether two neighbours on one are really apart is for the differences to say. Baselines that do not loop are
left out of the front over loops, because one loop of a deeper stack is no loop of the others. Measured times within
5 % of each other count as the same, so that noise puts nothing on a front.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from loopscope.evaluation.compare.condition import Condition
from loopscope.evaluation.compare.matched import baseline_role
from loopscope.results import Option
from loopscope.results.student_t import over_seeds_of

SAME_TIME = 1.05
"""Measured times up to so many times another count as the same."""


def options(conditions: Sequence[Condition], seconds: Mapping[str, Sequence[float]]) -> list[Option]:
    """Return the Pareto table: every condition at every depth, and whether any other beats it.

    Args:
        seconds: measured seconds per token at depth 1, 2, …, by condition; time ranks by counted FLOPs where any
            option lacks a measurement.
    """
    begun = [
        Option(
            condition=condition.name,
            loops=loop,
            bits_per_byte=over_seeds_of("bits_per_byte", condition.bits_per_byte(loop)),
            flops_per_token=_at(condition.evaluations[0].flops_per_token, loop),
            seconds_per_token=_at(seconds.get(condition.name, ()), loop),
            best_for_loops=False,
            best_for_time=False,
        )
        for condition in conditions
        for loop in range(1, condition.loops + 1)
    ]
    bits = [option.bits_per_byte.mean for option in begun]
    loops = [math.inf if baseline_role(option.condition) else float(option.loops) for option in begun]
    # Per byte: conditions may have tokens of different lengths.
    sizes = [condition.bytes_per_token for condition in conditions for _ in range(condition.loops)]
    flops = [_per(option.flops_per_token, size) for option, size in zip(begun, sizes, strict=True)]
    times = [_per(option.seconds_per_token, size) for option, size in zip(begun, sizes, strict=True)]
    by_flops = front([_known(value) for value in flops], bits)
    timed = all(time is not None for time in times)
    by_time = front([_known(value) for value in times], bits, SAME_TIME) if timed else by_flops
    return [
        replace(
            option,
            best_for_loops=best_for_loops,
            best_for_time=best_for_time,
            flops_per_byte=per_byte,
            best_for_flops=best_for_flops,
        )
        for option, best_for_loops, best_for_time, per_byte, best_for_flops in zip(
            begun, front(loops, bits), by_time, flops, by_flops, strict=True
        )
    ]


def front(costs: Sequence[float], losses: Sequence[float], alike: float = 1.0) -> list[bool]:
    """Return, point by point, whether no other point beats it; one that is not finite is on no front.

    Args:
        alike: costs count as no more than another up to so many times it, where the loss is less.
    """
    points = list(zip(costs, losses, strict=True))
    finite = [(cost, loss) for cost, loss in points if math.isfinite(cost) and math.isfinite(loss)]
    return [
        math.isfinite(cost)
        and math.isfinite(loss)
        and not any(
            (other_loss < loss and other <= alike * cost) or (other_loss == loss and other < cost)
            for other, other_loss in finite
        )
        for cost, loss in points
    ]


def _at(values: Sequence[float], loop: int) -> float | None:
    return values[loop - 1] if loop <= len(values) else None


def _per(value: float | None, size: float) -> float | None:
    return None if value is None else value / size


def _known(value: float | None) -> float:
    return math.inf if value is None else value
