"""A threshold chosen on one part of the windows, for a target, and what it gives on the other part.

The parts take turns, `BLOCK_WINDOWS` windows at a time: held-out text changes from end to end (other files, other
articles), and a first half would say little of a second. Nothing of the test part reaches the choice: it is read
after the threshold stands.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.evaluation.exits.curves import Sweep, exit_point, point_at
from loopscope.evaluation.exits.record import ExitRecord, Units
from loopscope.evaluation.exits.rules.base import AbstractRule
from loopscope.results import Calibration, ExitPoint
from loopscope.results.evaluations import Unit

BLOCK_WINDOWS = 8
"""Windows in a row that go to one part."""
SLACK = 1e-9
"""Relative rounding of the sums that a target is compared with."""


def calibrate_perplexity(record: ExitRecord, rule: AbstractRule, unit: Unit, more: Any = 0.01) -> Calibration:
    """Choose the loosest threshold that keeps perplexity within `more` of full depth, as every stricter one does.

    Args:
        more: share of perplexity that may be lost: 0.01 is at most 1 %.

    Raises:
        ValueError: `more` is not a number from 0 up, or there are fewer than two windows.
    """
    check_more(more)
    chosen, tested = _parts(record)
    units = chosen.units(rule, unit)
    sweep = Sweep.of(rule, units)
    ratio = (sweep.losses - sweep.losses[0]).exp()
    fits = ratio <= (1 + more) * (1 + SLACK)
    reach = int(fits.long().cumprod(0).sum()) - 1
    threshold = float(sweep.thresholds[reach]) if reach > 0 else None
    reason = f"no threshold that leaves early keeps perplexity within {more:.3g} of full depth's"
    return _outcome(rule, unit, "perplexity", 1.0 + more, threshold, units, tested, chosen, reason)


def calibrate_loops(record: ExitRecord, rule: AbstractRule, unit: Unit, budget: Any) -> Calibration:
    """Choose the strictest threshold whose mean loops are within a budget.

    Args:
        unit: what leaves as one: a whole `sequence`, or a `token`.
        budget: mean loops, from 1 up and below the full depth.

    Raises:
        ValueError: the budget is not a number in that range, or there are fewer than two windows.
    """
    check_budget(budget, record.losses.shape[0])
    chosen, tested = _parts(record)
    units = chosen.units(rule, unit)
    sweep = Sweep.of(rule, units)
    within = (sweep.mean_loops <= budget * (1 + SLACK)).nonzero()
    threshold = float(sweep.thresholds[int(within[0])]) if len(within) else None
    reason = f"no threshold comes below {float(sweep.mean_loops[-1]):.3g} loops"
    return _outcome(rule, unit, "mean loops", float(budget), threshold, units, tested, chosen, reason)


def check_more(more: Any) -> None:
    """Raise ValueError unless `more`, a share of perplexity that may be lost, is a number from 0 up."""
    if isinstance(more, bool) or not isinstance(more, int | float) or not 0 <= more < float("inf"):
        raise ValueError(
            f"more is {more!r}; give the share of perplexity that may be lost, from 0 up (0.01: at most 1 % more)"
        )


def check_budget(budget: Any, depth: int) -> None:
    """Raise ValueError unless `budget` is a number of mean loops that can be met: from 1 up, below `depth`."""
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 1 <= budget < depth:
        raise ValueError(
            f"budget is {budget!r}; give mean loops from 1 up and below {depth}, the full depth, which needs no rule"
        )


def split(windows: int) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " tested"]]:
    """Return the windows that a threshold is chosen on, and those that it is tested on, by index.

    Raises:
        ValueError: fewer than two windows.
    """
    if windows < 2:
        raise ValueError(
            f"windows is {windows}; a threshold is chosen on one part of them and tested on the other: give 2 or more"
        )
    indices = torch.arange(windows)
    first = indices // min(BLOCK_WINDOWS, windows // 2) % 2 == 0
    return indices[first], indices[~first]


def _parts(record: ExitRecord) -> tuple[ExitRecord, ExitRecord]:
    """To choose on, to test on."""
    chosen, tested = (record.part(windows) for windows in split(len(record)))
    if not (bool(chosen.counted.any()) and bool(tested.counted.any())):
        raise ValueError(
            "one part of the windows has no label that counts: nothing to choose or test a threshold on"
        )
    return chosen, tested


def _outcome(
    rule: AbstractRule,
    unit: Unit,
    target: Any,
    allowed: float,
    threshold: float | None,
    units: Units,
    tested: ExitRecord,
    chosen: ExitRecord,
    reason: str,
) -> Calibration:
    others = tested.units(rule, unit)
    full = exit_point(others, others.depth + 0 * others.counts, None)
    before = after = None
    is_held = None
    if threshold is not None:
        before, after = point_at(rule, units, threshold), point_at(rule, others, threshold)
        reached = after.mean_loops if target == "mean loops" else after.perplexity / full.perplexity
        is_held = reached <= allowed * (1 + SLACK)
    return Calibration(
        rule=rule.name,
        unit=unit,
        target=target,
        allowed=allowed,
        met=threshold is not None,
        held=is_held,
        threshold=threshold,
        chosen_on=before,
        tested_on=after,
        full_depth=full,
        windows=(len(chosen), len(tested)),
        why=_why(rule, target, allowed, after, full, is_held, reason, others.depth),
    )


def _why(
    rule: AbstractRule,
    target: str,
    allowed: float,
    after: ExitPoint | None,
    full: ExitPoint,
    is_held: bool | None,
    reason: str,
    depth: int,
) -> str:
    name = f"{rule.name} (a bound, which knows the labels)" if rule.bound else rule.name
    if after is None:
        return f"{name} cannot meet the target: {reason}"
    more = 100 * (after.perplexity / full.perplexity - 1)
    asked = f"at most {100 * (allowed - 1):.3g} % more" if target == "perplexity" else f"{allowed:.3g} loops"
    kept = "held" if is_held else "did not hold"
    return (
        f"{name} leaves after {after.mean_loops:.2f} of {depth} loops with {more:+.2f} % perplexity, on text that its "
        f"threshold was not chosen on: the target of {asked} {kept}"
    )
