"""What an exit rule trades: from a record of exits to a curve over thresholds.

`exits_at` is the definition, one threshold at a time. `Sweep` gives every threshold there is at once: as the threshold
loosens, a unit moves to an earlier loop only where that loop's score is the most ready one so far, so sorted moves and
running sums are all it takes. Memory: a few numbers per unit and loop.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.evaluation.exits.record import ExitRecord, Units
from loopscope.evaluation.exits.rules.base import AbstractRule
from loopscope.results import ExitCurve, ExitPoint, bits_per_byte, perplexity
from loopscope.results.evaluations import Unit

QUANTILES = 11
"""Thresholds of a curve: so many quantiles of all scores, and one just past each end (as the published code has)."""


def exits_at(rule: AbstractRule, units: Units, threshold: float) -> Int[Tensor, " units"]:
    """Return the loop (1-based) at which every unit leaves: the first before the last that fires, else the last.

    Args:
        threshold: in the rule's range; `rule.never` lets everybody run to the end.
    """
    fired = rule.fires(units.scores, threshold)
    always = torch.ones_like(units.counts, dtype=torch.bool)[None]
    return torch.cat([fired, always]).int().argmax(dim=0) + 1


def exit_point(units: Units, exits: Int[Tensor, " units"], threshold: float | None) -> ExitPoint:
    """Return quality and depth of given exits. Loops are a mean over all units, losses over counted tokens."""
    loss = float(units.losses.gather(0, exits[None] - 1).sum() / units.counts.sum())
    shares = torch.bincount(exits - 1, minlength=units.depth).double() / len(exits)
    return ExitPoint(
        threshold=threshold if threshold is not None and math.isfinite(threshold) else None,
        mean_loops=float(exits.double().mean()),
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_byte=bits_per_byte(loss, units.bytes_per_token),
        left_at=tuple(shares.tolist()),
    )


def point_at(rule: AbstractRule, units: Units, threshold: float) -> ExitPoint:
    """Return quality and depth of the exits that one threshold gives."""
    return exit_point(units, exits_at(rule, units, threshold), threshold)


def thresholds(units: Units) -> list[float]:
    """Return the thresholds of a curve: quantiles of all scores before the last loop, and one past each end, upwards.

    A score that is not finite (nothing to compare with at loop 1) is no threshold.
    """
    scores = units.scores[units.scores.isfinite()]
    if not len(scores):
        return []
    ordered = scores.sort().values
    # torch.quantile refuses more than 16 million numbers.
    ranks = torch.linspace(0, 1, QUANTILES, dtype=torch.float64) * (len(ordered) - 1)
    low, share = ranks.floor().long(), ranks - ranks.floor()
    values = torch.lerp(ordered[low], ordered[(low + 1).clamp(max=len(ordered) - 1)], share)
    past = [max(1e-6, 1e-9 * abs(float(end))) for end in (ordered[0], ordered[-1])]
    return [float(ordered[0]) - past[0], *values.tolist(), float(ordered[-1]) + past[1]]


def exit_curve(record: ExitRecord, rule: AbstractRule, unit: Unit) -> ExitCurve:
    """Return quality against loops, over a rule's thresholds. A fixed depth has one point per loop.

    Args:
        unit: what leaves as one: a whole `sequence`, or a `token`.

    Raises:
        ValueError: the rule was not recorded.
    """
    units = record.units(rule, unit)
    return ExitCurve(
        rule=rule.name,
        unit=unit,
        needs=rule.needs,
        bound=rule.bound,
        points=tuple(point_at(rule, units, threshold) for threshold in thresholds(units)),
    )


def fixed_points(record: ExitRecord) -> tuple[ExitPoint, ...]:
    """Return the points of fixed depths 1, 2, … K, in the reading that rules' points are in."""
    losses = record.losses.double().sum(dim=2)
    nothing = losses.new_zeros(len(losses) - 1, losses.shape[1])
    units = Units(losses, record.counted.sum(dim=1), nothing, record.bytes_per_token)
    every = torch.ones(len(record), dtype=torch.long)
    return tuple(exit_point(units, loop * every, None) for loop in range(1, units.depth + 1))


@dataclass(frozen=True)
class Sweep:
    """Every threshold of a rule at which something changes, from the strictest to the loosest.

    The first entry is the threshold that never fires: full depth.
    """

    thresholds: Float[Tensor, " settings"]
    mean_loops: Float[Tensor, " settings"]
    losses: Float[Tensor, " settings"]  # nats per counted token

    @staticmethod
    def of(rule: AbstractRule, units: Units) -> "Sweep":
        """Compute all settings of a rule on these units."""
        sign = 1.0 if rule.leaves == "above" else -1.0
        ready = (sign * units.scores).double()
        best = ready.cummax(dim=0).values
        depth, count = units.depth, len(units.counts)
        moved_at, loops, nats = [], [], []
        # Where a unit stands before it moves to loop k: the nearest later loop whose score is a new best.
        standing = torch.full((count,), depth)
        for loop in range(depth - 1, 0, -1):
            new = best[loop - 1] > best[loop - 2] if loop > 1 else best[0] > -math.inf
            moved_at.append(best[loop - 1][new])
            loops.append((loop - standing)[new].double())
            here, there = units.losses[loop - 1], units.losses.gather(0, standing[None] - 1)[0]
            nats.append((here - there)[new].double())
            standing = torch.where(new, loop, standing)
        order_by = torch.cat(moved_at) if moved_at else torch.zeros(0, dtype=torch.float64)
        order = order_by.argsort(descending=True)
        values = order_by[order]
        # Of equal thresholds only the last sum is a setting.
        last = torch.cat([values[1:] != values[:-1], torch.ones(min(1, len(values)), dtype=torch.bool)])
        spent = torch.cat(loops)[order].cumsum(0)[last] if moved_at else values
        lost = torch.cat(nats)[order].cumsum(0)[last] if moved_at else values
        whole, total = units.losses[-1].sum().double(), units.counts.sum().double()
        return Sweep(
            thresholds=torch.cat([torch.tensor([rule.never], dtype=torch.float64), sign * values[last]]),
            mean_loops=depth + torch.cat([torch.zeros(1, dtype=torch.float64), spent]) / count,
            losses=(whole + torch.cat([torch.zeros(1, dtype=torch.float64), lost])) / total,
        )
