"""A weight that several operations of a step use, and its gradient, which they sum up in one place.

Left to autograd, every loop's share of a shared matrix's gradient is widened, transposed and added by itself: 155 ms of
a 2.7 s step at the published size. Here shares are added as they come, in the weight's own dtype, and the sum is
transposed once, after the last. When that is, autograd knows: the node that gave the matrix out runs after all that
used it.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.ops.dispatch import is_on
from loopscope.ops.matmul import transposed
from loopscope.ops.private_torch import backward_pass_id, backward_pass_reaches
from loopscope.ops.step_scope import cached_in_step, scratch_buffer


class SharedWeight:
    """A weight as operations take it: an alias to compute with, and one sum of gradients for all uses.

    Attributes:
        matrix: an alias, through which autograd reaches the weight. In a backward pass an operation calls
            `add_gradient` where the weight is `wanted`, and returns no gradient for the alias (but for second
            derivatives, see `reference.recorded_gradients`).
    """

    def __init__(self, weight: Float[Tensor, "out dim"]) -> None:
        self._sums: dict[int, Tensor] = {}
        self.matrix: Tensor = _Alias.apply(weight, self._sums)

    def wanted(self) -> bool:
        """Return whether this backward pass asks for the weight's gradient: an audit asks for states' alone."""
        return backward_pass_reaches(self.matrix)

    def add_gradient(self, grad_out: Float[Tensor, "tokens out"], x: Float[Tensor, "tokens dim"]) -> None:
        """Add grad_outᵀ · x to the weight's gradient."""
        # With the tokens' axis last on the left, bf16 products are 1.7 times as fast; the narrower side is transposed.
        if x.shape[1] < grad_out.shape[1]:
            self.add_transposed_gradient(transposed(x), grad_out)
        else:
            self._add(transposed(grad_out), x, False)

    def add_transposed_gradient(
        self, x: Float[Tensor, "dim tokens"], grad_out: Float[Tensor, "tokens out"]
    ) -> None:
        """Add (x · grad_out)ᵀ to the weight's gradient, for an x that is transposed already."""
        self._add(x, grad_out, True)

    def _add(self, left: Tensor, right: Tensor, is_transposed: bool) -> None:
        # Every backward pass has its own sum.
        task, dtype = backward_pass_id(), self.matrix.dtype
        if task not in self._sums:
            total = torch.mm(left, right).to(dtype)
            self._sums[task] = total.T if is_transposed else total
            return
        total = self._sums[task].T if is_transposed else self._sums[task]
        if left.dtype == dtype:
            torch.addmm(total, left, right, out=total)
            return
        total.add_(torch.mm(left, right, out=scratch_buffer("share", total.shape, left.dtype)))


def shared_weight(weight: Float[Tensor, "out dim"]) -> SharedWeight:
    """Return a weight for an operation to use; within a step the same for all of them."""
    if not is_on("shared_weight"):
        return SharedWeight(weight)
    # By identity: two tensors may share their numbers and not their history.
    return cached_in_step(weight, (SharedWeight, id(weight)), lambda: SharedWeight(weight))


class _Alias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, sums: dict[int, Tensor]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.sums = sums
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None) -> tuple[Tensor | None, None]:
        total = ctx.sums.pop(backward_pass_id(), None)
        if total is None:
            return grad_out, None
        if not total.is_contiguous():
            total = transposed(total.T)
        return total if grad_out is None else grad_out + total, None
