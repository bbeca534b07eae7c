"""Seconds per token at every depth, measured alternately in one process.

Times of one machine at different moments do not compare, so every round times every model at every depth once, and
each figure is the least over rounds: whatever else runs only adds time. A depth costs its loops and one readout with
all logits. Memory: one batch with its logits.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.guards import device_of, evaluating, wait
from loopscope.ops.narrow_products import products_of
from loopscope.recurrence import AbstractLoopedLM, unroll

ROUNDS = 7


@torch.no_grad()
def seconds_per_token(
    models: Mapping[str, tuple[AbstractLoopedLM, int]],
    input_ids: Int[Tensor, "batch seq"],
    rounds: int = ROUNDS,
) -> dict[str, tuple[float, ...]]:
    """Measure the seconds per token at depth 1, 2, … of every model, on its own device.

    Args:
        models: by name, a model and its deepest loop.
        input_ids: one batch that every model can read.
        rounds: how often each depth is timed; a first round on top warms up and is not counted.
    """
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds + 1):
        for name, (model, deepest) in models.items():
            with evaluating(model), products_of(model):
                ids = input_ids.to(device_of(model))
                for loops in range(1, deepest + 1):
                    taken = seconds(ids.device, partial(last_logits, model, ids, loops))
                    if number:
                        times.setdefault((name, loops), []).append(taken)
    return {
        name: tuple(min(times[name, loops]) / input_ids.numel() for loops in range(1, deepest + 1))
        for name, (_, deepest) in models.items()
    }


def last_logits(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], loops: int
) -> Float[Tensor, "batch seq vocab"]:
    """Run a fixed depth and return its last exit's logits."""
    (last,) = deque(unroll(model, input_ids, loops), maxlen=1)
    return last.logits()


def seconds(device: torch.device, run: Callable[[], Any]) -> float:
    """Return the seconds that one call takes, with all that it queued on an accelerator."""
    wait(device)
    began = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - began
