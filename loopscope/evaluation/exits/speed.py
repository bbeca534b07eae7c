"""Realised speed-up of early exit, beside the ideal one and beside what the counted FLOPs allow.

Fixed depth and early exit run in turns in one process, on the same batch, and both give every sequence's logits. The
figure is the median over pairs of fixed / exit seconds: a slow moment of the machine hits both sides of a pair.

    ideal     K / mean loops: as if looking were free
    allowed   FLOPs of fixed depth / FLOPs of the exits taken, with every readout that the rule asked for
    realised  what the clock says
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.evaluation.compare.timing import last_logits, seconds
from loopscope.evaluation.exits.early_exits import early_exit
from loopscope.evaluation.exits.rules.base import AbstractExitRule, Sizes
from loopscope.guards import evaluating
from loopscope.ops.narrow_products import products_of
from loopscope.recurrence import AbstractLoopedLM, unroll
from loopscope.results import Speed

Flops = Callable[[int, int], float]
"""FLOPs per token of a forward pass of so many loops and so many exits (`loopscope.plan.flops.forward_flops`)."""


@torch.no_grad()
def measure_speed(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    rule: AbstractExitRule,
    threshold: Any,
    pairs: Any = 5,
    flops: Flops | None = None,
    loops: int | None = None,
) -> Speed:
    """Time early exit against fixed depth, in `pairs` pairs after one that warms up.

    Args:
        flops: counts FLOPs; None leaves `allowed` out.

    Raises:
        ValueError: as `early_exit`; fewer than one pair.
    """
    if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 1:
        raise ValueError(f"pairs is {pairs!r}; give a whole number from 1 up (5 for a median)")
    depth = model.loops if loops is None else loops
    device, fixed, exits, allowed = input_ids.device, [], [], None
    with evaluating(model), products_of(model):
        taken = early_exit(model, input_ids, rule, threshold, depth).loops
        last_logits(model, input_ids, depth)
        for _ in range(pairs):
            fixed.append(seconds(device, lambda: last_logits(model, input_ids, depth)))
            exits.append(seconds(device, lambda: early_exit(model, input_ids, rule, threshold, depth)))
        if flops is not None:
            allowed = flops(depth, 1) / exit_flops(model, input_ids[:1], rule, taken, depth, flops)
    mean_loops = float(taken.double().mean())
    return Speed(
        rule=rule.name,
        unit="sequence",
        threshold=float(threshold),
        batch=input_ids.shape[0],
        sequence=input_ids.shape[1],
        mean_loops=mean_loops,
        fixed_seconds=tuple(fixed),
        exit_seconds=tuple(exits),
        realised=median(slow / fast for slow, fast in zip(fixed, exits, strict=True)),
        ideal=depth / mean_loops,
        allowed=allowed,
        threads=torch.get_num_threads(),
        device=str(input_ids.device),
    )


def exit_flops(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "one seq"],
    rule: AbstractExitRule,
    taken: Int[Tensor, " batch"],
    depth: int,
    flops: Flops,
) -> float:
    """Return FLOPs per token of given exits: loops run, every look, and the readouts that no look had made already."""
    features = next(unroll(model, input_ids, 1)).features()
    vocab = model.head(features[:, -1:]).shape[-1]
    sizes = Sizes(features.shape[-1], vocab, input_ids.shape[1], readout=flops(1, 1) - flops(1, 0))
    total = 0.0
    for loop in taken.tolist():
        looks = sum(rule.look_flops(seen, sizes) for seen in range(1, min(loop, depth - 1) + 1))
        reused = "logits" in rule.needs and loop < depth
        total += flops(loop, 0) + looks + (0.0 if reused else sizes.readout)
    return total / len(taken)
