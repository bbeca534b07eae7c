"""Matrix products on a CPU, the way its library does them fastest, and sums that widen as they add."""

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.ops.fusion import Kernel
from loopscope.ops.step_scope import scratch

FEW = 2**18
"""Numbers that are widened at a time, so that they are still in the cache."""

ALONE_ROWS, ALONE_COLUMNS = range(321, 1280), range(321, 896)
"""Sizes of a narrow product that oneDNN leaves to one of two threads (`product`)."""


def _turned(x: Tensor) -> Tensor:
    return x.T.contiguous()


turned = Kernel(_turned, _turned)
"""A matrix with its axes changed, in one piece."""


def product(
    left: Float[Tensor, "rows inner"], right: Float[Tensor, "inner columns"], out: Tensor | None = None
) -> Float[Tensor, "rows columns"]:
    """left · right, 256 rows at a time where that is faster.

    oneDNN 3.x leaves a narrow product of `ALONE_ROWS` by `ALONE_COLUMNS` to one of two threads: 512 × 2048 by
    2048 × 512 runs at 970 GFLOP/s then, and at 1,540 in two parts (`docs/results`, 2026-11-25).
    """
    rows, columns = len(left), right.shape[1]
    alone = rows in ALONE_ROWS and columns in ALONE_COLUMNS and left.element_size() == 2
    if not alone or left.device.type != "cpu" or torch.get_num_threads() == 1:
        return torch.mm(left, right) if out is None else torch.mm(left, right, out=out)
    out = left.new_empty(rows, columns) if out is None else out
    for start in range(0, rows, 256):
        part = slice(start, start + 256)
        torch.mm(left[part], right, out=out[part])
    return out


def linear(x: Float[Tensor, "*batch dim"], matrix: Float[Tensor, "out dim"]) -> Float[Tensor, "*batch out"]:
    """x · matrixᵀ by `product`, in a tensor of its own."""
    out = x.new_empty(*x.shape[:-1], len(matrix))
    product(x.reshape(-1, x.shape[-1]), matrix.T, out=out.view(-1, len(matrix)))
    return out


def _add_(total: Tensor, share: Tensor, factor: Tensor) -> None:
    """A few at a time: as one operation it takes 65 ms for ten million numbers on one thread, and so 5."""
    for part in range(0, len(total), FEW):
        own = share[part : part + FEW]
        wider = scratch("wider", own.shape, total.dtype).copy_(own)
        total[part : part + FEW].add_(wider.mul_(factor))


def _add_formula_(total: Tensor, share: Tensor, factor: Tensor) -> None:
    total.add_(share.to(total.dtype) * factor)


_add = Kernel(_add_, _add_formula_)


def add_(total: Tensor, share: Tensor, factor: float = 1.0) -> None:
    """total += factor · share of a narrower type; both in one piece, and laid out alike."""
    if total.device.type != "cpu":
        total.add_(share, alpha=factor)
        return
    _add(total.view(-1), share.view(-1), total.new_tensor(factor))
