"""What matmuls on a CPU are prepared and summed up with: transposed copies, and sums that widen as they add."""

from torch import Tensor

from loopscope.ops.dispatch import cpu_ops_apply
from loopscope.ops.fusion import Fusable
from loopscope.ops.step_scope import scratch_buffer

FEW = 2**18
"""Numbers that are widened at a time, so that they are still in the cache."""


def _transposed(x: Tensor) -> Tensor:
    return x.T.contiguous()


transposed = Fusable(_transposed, _transposed)
"""Return a matrix with its axes exchanged, in one piece."""


def accumulate_(total: Tensor, share: Tensor, factor: float = 1.0) -> None:
    """Add factor · share to total, in place; share may be narrower. Both contiguous, and laid out alike."""
    if not cpu_ops_apply("accumulate", total):
        total.add_(share, alpha=factor)
        return
    _accumulate(total.view(-1), share.view(-1), total.new_tensor(factor))


def _accumulate_plain_(total: Tensor, share: Tensor, factor: Tensor) -> None:
    """A few at a time: as one operation it takes 65 ms for ten million numbers on one thread, and so 5."""
    for start in range(0, len(total), FEW):
        part = share[start : start + FEW]
        wider = scratch_buffer("wider", part.shape, total.dtype).copy_(part)
        total[start : start + FEW].add_(wider.mul_(factor))


def _accumulate_formula_(total: Tensor, share: Tensor, factor: Tensor) -> None:
    total.add_(share.to(total.dtype) * factor)


_accumulate = Fusable(_accumulate_plain_, _accumulate_formula_)
