"""What a check of the monitor looks at: a slice of the batch. And what a monitor refuses to look at."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.audit.input_checks import check_subject
from loopscope.objectives.labels import check_one_label_each
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import check_input_ids

SEQUENCES = 2
"""Sequences of a slice; together they have at most the tokens asked for."""
UNSHIFTED = (
    "the scale monitor's labels are the input tokens themselves, as transformers has them before its models shift "
    "them: every cross-entropy here is of a token that the model was just given, and the verdict's exposures with it. "
    "Call monitor.step(step, input_ids[:, :-1], labels[:, 1:])"
)


def slice_of(
    input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"], tokens: int
) -> tuple[Int[Tensor, "part width"], Int[Tensor, "part width"]]:
    """Return up to `SEQUENCES` sequences and one window of them, at most `tokens`, where most labels count.

    Instruction data ignore the labels of long prompts: a slice of those alone would have no loss. Both are
    contiguous, as batches are: forwards call `targets.view(-1)`.
    """
    counted = labels != IGNORE_INDEX
    rows = counted.sum(dim=1).argsort(descending=True, stable=True)[:SEQUENCES]
    width = min(input_ids.shape[1], tokens // len(rows))
    sums = torch.nn.functional.pad(counted[rows].sum(dim=0).cumsum(dim=0), (1, 0))
    start = int((sums[width:] - sums[:-width]).argmax())
    window = slice(start, start + width)
    return input_ids[rows, window].contiguous(), labels[rows, window].contiguous()


def check_batch(input_ids: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless input ids and labels are [batch seq] tensors of one shape."""
    check_input_ids(input_ids)
    check_one_label_each(input_ids, labels)


def check_arguments(model: Any, objective: Any, every: Any, tokens: Any) -> None:
    """Raise ValueError for arguments that a monitor cannot work with."""
    check_subject(model, objective)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every is {every!r}; give the steps between checks, a whole number from 1 up")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < SEQUENCES:
        raise ValueError(
            f"tokens is {tokens!r}; a check looks at up to {SEQUENCES} sequences: give {SEQUENCES} or more"
        )
