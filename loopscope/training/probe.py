"""What a check of the monitor looks at: a slice of the batch, and the model in full precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import check_input_ids

SEQUENCES = 2
"""Sequences of a slice; together they have at most the tokens asked for."""
WIDE = (torch.float32, torch.float64)


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


@contextmanager
def in_fp32(model: nn.Module) -> Iterator[None]:
    """Weights and buffers in half precision give way to fp32 copies meanwhile; they themselves are not touched.

    A carry is a small difference, which 8 bits of mantissa do not hold. Widening a parameter's own data would make
    autograd forget its gradient accumulator, and with it the hooks through which DDP exchanges gradients.
    """
    copies: dict[int, Tensor] = {}  # one per tensor, so that tied weights stay tied
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for table in tables:
                for name, tensor in list(table.items()):
                    if tensor is None or not tensor.is_floating_point() or tensor.dtype in WIDE:
                        continue
                    if id(tensor) not in copies:
                        wide = tensor.detach().float()
                        copies[id(tensor)] = nn.Parameter(wide) if table is module._parameters else wide
                    replaced.append((table, name, tensor))
                    table[name] = copies[id(tensor)]
        yield
    finally:
        for table, name, tensor in replaced:
            table[name] = tensor


def check_batch(input_ids: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless both are [batch seq] tensors of one shape."""
    check_input_ids(input_ids)
    if labels.shape != input_ids.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, input_ids {tuple(input_ids.shape)}; give one label per token"
        )
