"""Names that PyTorch does not promise: where a version lacks or changes one, this fails, and says which."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from loopscope.ops import private_torch

pytestmark = pytest.mark.smoke


class Watched(torch.autograd.Function):
    """x · w, noting in its backward pass what the running pass says."""

    notes: ClassVar[list[tuple[int, bool, bool]]] = []

    @staticmethod
    def forward(ctx: object, x: Tensor, w: Tensor) -> Tensor:
        ctx.inputs = x, w  # type: ignore[attr-defined]
        return x * w

    @staticmethod
    def backward(ctx: object, grad_out: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.inputs  # type: ignore[attr-defined]
        reaches = (private_torch.backward_pass_reaches(one) for one in (x, w))
        Watched.notes.append((private_torch.backward_pass_id(), *reaches))
        return grad_out * w, grad_out * x


def test_a_backward_pass_has_a_number_and_knows_what_it_reaches() -> None:
    x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    Watched.notes.clear()
    a, b = x.view_as(x), w.view_as(w)
    total = Watched.apply(Watched.apply(a, b), b).sum()
    assert private_torch.backward_pass_id() == -1
    torch.autograd.grad(total, [x, w], retain_graph=True)
    torch.autograd.grad(total, [x], retain_graph=True)
    (first, *whole), (same, *_), (second, *partial), _ = Watched.notes
    assert first == same != -1
    assert second not in (first, -1)
    assert whole[1] is True
    assert partial[1] is False  # w's gradient was not asked for
    assert all(reaches_x for _, reaches_x, _ in Watched.notes)
    assert not private_torch.backward_pass_reaches(x)  # a leaf was made from nothing


def test_softmaxs_gradient_is_its_formula() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    softmax, grad_out = scores.softmax(-1), torch.randn(3, 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad(softmax, scores, grad_out)
    torch.testing.assert_close(private_torch.softmax_backward(grad_out, softmax.detach()), expected)


def test_an_in_place_change_moves_a_tensors_version() -> None:
    """`Tensor._version`, by which a norm's note on its result is known to hold still."""
    x = torch.ones(2)
    before = x._version
    x.add_(1)
    assert x._version == before + 1
    torch.mul(torch.ones(1), 2, out=x[:1])
    assert x._version > before + 1


@pytest.mark.smoke
def test_a_storage_has_one_number_wherever_its_memory_lies() -> None:
    weight, other = torch.ones(8), torch.ones(8)
    number = private_torch.storage_identity(weight)
    assert (
        private_torch.storage_identity(weight.view(2, 4)) == number != private_torch.storage_identity(other)
    )
    size = weight.untyped_storage().size()
    weight.untyped_storage().resize_(0)
    weight.untyped_storage().resize_(size)
    assert private_torch.storage_identity(weight) == number
