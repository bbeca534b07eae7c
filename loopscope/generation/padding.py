"""Batches of texts of different lengths: padded left or right, and moved to where generation wants them."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.recurrence import check_attention_mask


def pad(
    rows: Sequence[Sequence[int]], side: Literal["left", "right"] = "left"
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """Return token ids of different lengths as one batch, and its mask (1 for a token, 0 for padding).

    Args:
        rows: token ids, one list per text.
        side: where shorter rows are filled up with id 0.

    Raises:
        ValueError: no rows, or an empty one.
    """
    for number, row in enumerate(rows):
        if len(row) == 0:
            raise ValueError(f"prompt {number} is empty; give every prompt at least one token")
    if not rows:
        raise ValueError("there are no prompts; give at least one")
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        columns = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[index, columns] = torch.as_tensor(list(row), dtype=torch.int64)
        mask[index, columns] = 1
    return ids, mask


def to_the_right(
    input_ids: Int[Tensor, "batch seq"], attention_mask: Any
) -> tuple[Int[Tensor, "batch longest"], Int[Tensor, " batch"]]:
    """Move every row's tokens to the end of the batch, so that all go on in one column; also return padding per row.

    Args:
        attention_mask: [batch, seq], 1 at tokens, 0 at padding, left, right, or both; None where there is none.

    Raises:
        ValueError: another shape, a row without a token, or padding inside a text.
    """
    batch, seq = input_ids.shape
    tokens = check_attention_mask(input_ids, attention_mask)
    if tokens is None:
        return input_ids, torch.zeros(batch, dtype=torch.int64, device=input_ids.device)
    lengths = tokens.sum(dim=1)
    last = seq - tokens.flip(1).int().argmax(dim=1)
    pads = seq - lengths
    source = torch.arange(seq, device=input_ids.device)[None] - (seq - last)[:, None]
    moved = input_ids.gather(1, source.clamp(min=0))
    trim = int(pads.min())  # columns that are padding in every row
    is_token = torch.arange(seq, device=input_ids.device)[None] >= pads[:, None]
    return moved.where(is_token, 0)[:, trim:], pads - trim
