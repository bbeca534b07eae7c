"""What every exit is worth on held-out windows, in one unroll per batch."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.guards import evaluating
from loopscope.numerics import l2_norm, scale
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import AbstractLoopedLM, unroll
from loopscope.results import LoopMetrics, bits_per_byte, perplexity
from loopscope.training.distributed.ranks import ALONE, Ranks

Batches = Iterable[tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]]


@torch.no_grad()
def validate(
    model: AbstractLoopedLM,
    batches: Batches,
    bytes_per_token: float,
    device: torch.device,
    loops: int | None = None,
    ranks: Ranks = ALONE,
) -> tuple[LoopMetrics, ...]:
    """Measure loss, perplexity, bits per byte and scale of every loop.

    Runs in evaluation mode and the caller's precision context; sums in float64, so that the mean over
    millions of tokens keeps its digits.

    Args:
        bytes_per_token: UTF-8 bytes of the validation text over its tokens.
        ranks: processes that share the batches; each has the whole figures in the end.

    Raises:
        ValueError: no batch, or no label that counts.
    """
    depth = model.loops if loops is None else loops
    loss, l2, rms = (torch.zeros(depth, dtype=torch.float64, device=device) for _ in range(3))
    counted = torch.zeros((), dtype=torch.int64, device=device)
    tokens = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(model):
        for input_ids, labels, counts in dealt(batches, ranks):
            input_ids, labels = input_ids.to(device), labels.to(device)
            tokens += counts * labels.numel()
            counted += counts * (labels != IGNORE_INDEX).sum()
            for state in unroll(model, input_ids, depth):
                index = state.loop - 1
                nats = chunked_cross_entropy(model.head, state.features(), labels)
                loss[index] += counts * nats.double().sum()
                l2[index] += counts * l2_norm(state.hidden).double().sum()
                rms[index] += counts * scale(state.hidden).double().sum()
    for sums in (loss, l2, rms, counted, tokens):
        ranks.sum_(sums)
    if not int(tokens) or not int(counted):
        raise ValueError("nothing to validate on: no window, or every label is ignored")
    return tuple(
        loop_metrics(loop, nats, norm, size, bytes_per_token)
        for loop, (nats, norm, size) in enumerate(
            zip((loss / counted).tolist(), (l2 / tokens).tolist(), (rms / tokens).tolist(), strict=True),
            start=1,
        )
    )


def dealt(batches: Batches, ranks: Ranks) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield this process' batches, and whether each counts: 1 or 0.

    All processes get equally many, so that weights in shards are asked for equally often: where the last round has too
    few, a process works on its first batch again, which does not count.
    """
    whole = iter(batches)
    while dealing := list(islice(whole, ranks.world)):
        own = ranks.rank < len(dealing)
        yield *dealing[ranks.rank if own else 0], int(own)


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
