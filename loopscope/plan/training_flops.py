"""What a training step costs, from the run's config: all that it does, at the depths that it draws.

Importable without torch. A test holds it against torch's FLOP counter on steps as they are run.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from loopscope.config.run_config import RunConfig
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.depth_config import draw_depths
from loopscope.objectives.phase import phases_over
from loopscope.objectives.placement_config import placement_of
from loopscope.plan.flops import jacobian_flops, shortcut_flops, spared_flops, step_flops, training_flops

DRAWN = 512
"""Steps over which drawn depths are averaged: the mean of the deepest of a batch has no short formula."""


def training_cost(config: RunConfig, steps: int = DRAWN) -> int:
    """Return FLOPs per token of a training step, once a curriculum is over; the mean over the phases of a schedule.

    Counted: every loop that runs (with `depth.per_sequence`, all sequences run as deep as the deepest), gradients
    through the loops that `depth.backprop` leaves, the exits that the loss reads, what gradient checkpointing runs
    again, the shortcut's second exit, the Jacobian penalty.

    Args:
        steps: depths that are drawn count as the mean over the draws of so many steps.
    """
    costs, parts = phase_costs(config, steps), phase_shares(config)
    return costs[0] if len(costs) == 1 else round(sum(c * p for c, p in zip(costs, parts, strict=True)))


def phase_costs(config: RunConfig, steps: int = DRAWN) -> tuple[int, ...]:
    """Return `training_cost` of every phase of the objective; of one where there is no schedule."""
    return tuple(_cost(config, phase, steps) for phase in config.objective.phases)


def phase_shares(config: RunConfig) -> tuple[float, ...]:
    """Return every phase's share of the run's steps, as it is given where `training.epochs` says how long."""
    objective, steps = config.objective, config.training.steps
    if objective.schedule is None:
        return (1.0,)
    if steps is not None:
        return tuple(phase.steps / steps for phase in phases_over(objective, steps))
    ends = [0.0, *(phase.until or 1.0 for phase in objective.schedule)]
    return tuple(end - begin for begin, end in pairwise(ends))


def _cost(config: RunConfig, objective: ObjectiveConfig, steps: int) -> int:
    model, training = config.model, config.training
    task = config.data.corpus == "task"  # whose windows may be shorter
    seq = config.data.task.width(model.sequence) if task else model.sequence
    again = training.gradient_checkpointing != "none"
    by_token = placement_of(objective).declaration.by_token
    loops, cuts = mean_depths(config, steps)
    exits = exits_read(objective, loops)
    flops = step_flops(model, seq, loops, exits, again, by_token)
    flops -= sum(spared_flops(model, seq, cut, again) for cut in cuts) / len(cuts)
    if objective.shortcut.weight > 0 and loops > 1:
        flops += shortcut_flops(model, seq, loops, heads=int(objective.shortcut.loss_weight > 0))
    if objective.jacobian.weight > 0:
        flops += jacobian_flops(model, seq, objective.jacobian.iterations)
    return round(flops)


def exits_read(objective: ObjectiveConfig, loops: float) -> float:
    """Return the exits whose logits a step of `loops` loops computes; between whole numbers, what lies between."""
    placement = placement_of(objective)
    if placement.declaration.reads in ("last", "all"):
        return 1.0 if placement.declaration.reads == "last" else loops
    below, above = (
        sum(placement.reads(loop, depth) for loop in range(1, depth + 1))
        for depth in (math.floor(loops), math.ceil(loops))
    )
    return below + (loops - math.floor(loops)) * (above - below)


def mean_depths(config: RunConfig, steps: int = DRAWN) -> tuple[float, list[float]]:
    """Return the mean of the loops that a step runs, and the loops that have no gradient, equally likely ones."""
    depth, training, loops = config.training.depth, config.training, config.model.loops
    size, after = training.batch // training.accumulation, depth.curriculum
    draws = [
        draw_depths(depth, loops, training.seed, step, training.batch)
        for step in range(after, after + (steps if depth.varies else 1))
    ]
    if not depth.per_sequence:
        # The mean has a formula; what a draw keeps of it varies less than the draw itself.
        mean = max(1.0, depth.average(loops))
        kept = mean if depth.backprop is None else sum(min(d, depth.backprop) for (d,) in draws) / len(draws)
        return mean, [max(0.0, mean - kept)]
    cuts = [
        0.0 if depth.backprop is None else float(max(0, min(drawn[start : start + size]) - depth.backprop))
        for drawn in draws
        for start in range(0, training.batch, size)
    ]
    return sum(map(max, draws)) / len(draws), cuts


def step_flops_by_depth(
    config: RunConfig, objective: ObjectiveConfig | None = None
) -> Callable[[int], float]:
    """Return FLOPs per token of a training step by its loops, without what extra terms and checkpointing add.

    Args:
        objective: a phase of the run's; None takes the run's.
    """
    model, cut, read = config.model, config.training.depth.backprop, objective or config.objective
    by_token = placement_of(read).declaration.by_token

    def flops(loops: int) -> float:
        exits = round(exits_read(read, loops))
        return float(training_flops(model, model.sequence, loops, exits, cut, by_token=by_token))

    return flops
