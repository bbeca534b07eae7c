"""What a check of the monitor looks at: a slice of the batch."""

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import check_input_ids

SEQUENCES = 2
"""Sequences of a slice; together they have at most the tokens asked for."""


def slice_of(
    input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"], tokens: int
) -> tuple[Int[Tensor, "part width"], Int[Tensor, "part width"]]:
    """Up to `SEQUENCES` sequences and one window of them, together at most `tokens`, where most labels count.

    Instruction data ignore the labels of long prompts: a slice of those alone would have no loss.
    """
    counted = labels != IGNORE_INDEX
    rows = counted.sum(dim=1).argsort(descending=True, stable=True)[:SEQUENCES]
    width = min(input_ids.shape[1], tokens // len(rows))
    sums = torch.nn.functional.pad(counted[rows].sum(dim=0).cumsum(dim=0), (1, 0))
    start = int((sums[width:] - sums[:-width]).argmax())
    window = slice(start, start + width)
    return input_ids[rows, window], labels[rows, window]


def check_batch(input_ids: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless both are [batch seq] tensors of one shape."""
    check_input_ids(input_ids)
    if labels.shape != input_ids.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, input_ids {tuple(input_ids.shape)}; give one label per token"
        )
