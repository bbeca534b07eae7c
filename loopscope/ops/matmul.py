"""What matmuls on a CPU are prepared with: transposed copies."""

from torch import Tensor

from loopscope.ops.fusion import Fusable


def _transposed(x: Tensor) -> Tensor:
    return x.T.contiguous()


transposed = Fusable(_transposed, _transposed)
"""Return a matrix with its axes exchanged, in one piece."""
