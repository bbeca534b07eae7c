"""What a training step costs, from the run's config: all that it does, at the depths that it draws.

Importable without torch. A test holds it against torch's FLOP counter on steps as they are run.
"""

import math
from collections.abc import Callable

from loopscope.config.run_config import RunConfig
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.depth_config import draw_depths
from loopscope.objectives.placement_config import placement_of
from loopscope.plan.flops import jacobian_flops, shortcut_flops, spared_flops, step_flops, training_flops

DRAWN = 512
"""Steps over which drawn depths are averaged: the mean of the deepest of a batch has no short formula."""


def training_cost(config: RunConfig, steps: int = DRAWN) -> int:
    """Return FLOPs per token of a training step, once a curriculum is over.

    Counted: every loop that runs (with `depth.per_sequence`, all sequences run as deep as the deepest), gradients
    through the loops that `depth.backprop` leaves, the exits that the loss reads, what gradient checkpointing runs
    again, the shortcut's second exit, the Jacobian penalty.

    Args:
        steps: depths that are drawn count as the mean over the draws of so many steps.
    """
    model, objective, training = config.model, config.objective, config.training
    task = config.data.corpus == "task"  # whose windows may be shorter
    seq = config.data.task.width(model.sequence) if task else model.sequence
    again = training.gradient_checkpointing != "none"
    by_token = placement_of(objective).declaration.by_token
    loops, cuts = _depths(config, steps)
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


def _depths(config: RunConfig, steps: int) -> tuple[float, list[float]]:
    """Mean of the loops that a step runs, and the loops that have no gradient, equally likely ones."""
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


def step_flops_by_depth(config: RunConfig) -> Callable[[int], float]:
    """Return FLOPs per token of a training step by its loops, without what extra terms and checkpointing add."""
    model, cut = config.model, config.training.depth.backprop
    by_token = placement_of(config.objective).declaration.by_token

    def flops(loops: int) -> float:
        exits = round(exits_read(config.objective, loops))
        return float(training_flops(model, model.sequence, loops, exits, cut, by_token=by_token))

    return flops
