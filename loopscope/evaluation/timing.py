"""Seconds per token at every depth, measured alternately in one process.

Times of one machine at different moments do not compare, so every round times every model at every depth once, and
each figure is the least over rounds: whatever else runs only adds time. A depth costs its loops and one readout with
all logits. Memory: one batch with its logits.
"""

import time
from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.recurrence import AbstractLoopedLM, evaluating, unroll

ROUNDS = 7


@torch.no_grad()
def seconds_per_token(
    models: Mapping[str, tuple[AbstractLoopedLM, int]],
    input_ids: Int[Tensor, "batch seq"],
    rounds: int = ROUNDS,
) -> dict[str, tuple[float, ...]]:
    """Seconds per token at depth 1, 2, … of every model, on its own device.

    Args:
        models: by name, a model and its deepest loop.
        input_ids: one batch that every model can read.
        rounds: how often each depth is timed; a first round on top warms up and is not counted.
    """
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds + 1):
        for name, (model, deepest) in models.items():
            with evaluating(model):
                ids = input_ids.to(next(model.parameters()).device)
                for loops in range(1, deepest + 1):
                    seconds = _once(model, ids, loops)
                    if number:
                        times.setdefault((name, loops), []).append(seconds)
    return {
        name: tuple(min(times[name, loops]) / input_ids.numel() for loops in range(1, deepest + 1))
        for name, (_, deepest) in models.items()
    }


def _once(model: AbstractLoopedLM, input_ids: Tensor, loops: int) -> float:
    """Seconds of one unroll with the logits of its last loop."""
    _wait(input_ids)
    began = time.perf_counter()
    for state in unroll(model, input_ids, loops):
        if state.is_last:
            state.logits()
    _wait(input_ids)
    return time.perf_counter() - began


def _wait(tensor: Tensor) -> None:
    """Let an accelerator finish what was queued."""
    if tensor.device.type != "cpu":
        torch.accelerator.synchronize(tensor.device)
