"""What every exit is worth on held-out windows, in one unroll per batch."""

from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.guards import evaluating
from loopscope.numerics import l2_norm, scale
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import AbstractLoopedLM, unroll
from loopscope.results import LoopMetrics, bits_per_byte, perplexity

Batches = Iterable[tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]]


@torch.no_grad()
def validate(
    model: AbstractLoopedLM,
    batches: Batches,
    bytes_per_token: float,
    device: torch.device,
    loops: int | None = None,
) -> tuple[LoopMetrics, ...]:
    """Measure loss, perplexity, bits per byte and scale of every loop.

    Runs in evaluation mode and the caller's precision context; sums in float64, so that the mean over
    millions of tokens keeps its digits.

    Args:
        bytes_per_token: UTF-8 bytes of the validation text over its tokens.

    Raises:
        ValueError: no batch, or no label that counts.
    """
    depth = model.loops if loops is None else loops
    loss, l2, rms = (torch.zeros(depth, dtype=torch.float64, device=device) for _ in range(3))
    counted = torch.zeros((), dtype=torch.int64, device=device)
    tokens = 0
    with evaluating(model):
        for input_ids, labels in batches:
            input_ids, labels = input_ids.to(device), labels.to(device)
            tokens += labels.numel()
            counted += (labels != IGNORE_INDEX).sum()
            for state in unroll(model, input_ids, depth):
                index = state.loop - 1
                loss[index] += chunked_cross_entropy(model.head, state.features(), labels).double().sum()
                l2[index] += l2_norm(state.hidden).double().sum()
                rms[index] += scale(state.hidden).double().sum()
    if not tokens or not int(counted):
        raise ValueError("nothing to validate on: no window, or every label is ignored")
    return tuple(
        loop_metrics(loop, nats, norm, size, bytes_per_token)
        for loop, (nats, norm, size) in enumerate(
            zip((loss / counted).tolist(), (l2 / tokens).tolist(), (rms / tokens).tolist(), strict=True),
            start=1,
        )
    )


def loop_metrics(loop: int, nats: float, l2: float, rms: float, bytes_per_token: float) -> LoopMetrics:
    """Return the metrics of one loop from its mean cross-entropy in nats per token."""
    return LoopMetrics(
        loop=loop,
        loss=nats,
        perplexity=perplexity(nats),
        bits_per_byte=bits_per_byte(nats, bytes_per_token),
        l2_norm=l2,
        rms=rms,
    )
