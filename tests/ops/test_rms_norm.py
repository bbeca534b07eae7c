"""RMSNorm that keeps less, against PyTorch's own: value, gradients, second derivatives, what is kept."""

import pytest
import torch
from torch import nn

from loopscope.ops.rms_norm import RMSNorm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-6, None])
def test_equal_to_pytorchs(affine: bool, eps: float | None) -> None:
    torch.manual_seed(0)
    own, theirs = (kind(16, eps=eps, elementwise_affine=affine) for kind in (RMSNorm, nn.RMSNorm))
    if affine:
        own.weight.data.normal_()
        theirs.load_state_dict(own.state_dict())
    x = (50 * torch.randn(2, 5, 16)).requires_grad_()
    upstream = torch.randn(2, 5, 16)
    results = []
    for norm in (own, theirs):
        out = norm(x)
        results.append([out.detach(), *torch.autograd.grad(out, [x, *norm.parameters()], upstream)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert torch.equal(own(x), theirs(x))
    with torch.no_grad():
        assert torch.equal(own(x), theirs(x))


def test_derivatives_of_both_orders() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(6, eps=1e-3).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    weight = norm.weight

    def run(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return norm(x)

    assert torch.autograd.gradcheck(run, (x, weight))
    assert torch.autograd.gradgradcheck(run, (x, weight))


def test_second_derivatives_where_the_weight_is_also_in_the_inputs_history() -> None:
    """A looped layer's norm reads what the same norm made before: its weight must count once at each place."""
    torch.manual_seed(0)
    norm = RMSNorm(4, eps=1e-3).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return norm(x + norm(norm(x).sin()))

    plain = torch.autograd.grad(run(x, norm.weight)[0, 0], (x, norm.weight))
    recorded = torch.autograd.grad(run(x, norm.weight)[0, 0], (x, norm.weight), create_graph=True)
    for one, other in zip(plain, recorded, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradgradcheck(run, (x, norm.weight))


def test_only_the_input_and_one_number_a_token_are_kept() -> None:
    norm = RMSNorm(16)
    x = torch.randn(2, 5, 16, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm(x)
    new = [t.numel() for t in kept if t.data_ptr() not in (x.data_ptr(), norm.weight.data_ptr())]
    assert new == [10]
