"""RMSNorm that keeps less, against PyTorch's own: value, gradients, second derivatives, what is kept."""

import pytest
import torch
from torch import nn

from loopscope.ops.dispatch import without_op
from loopscope.ops.linear import shared_linear
from loopscope.ops.rms_norm import RMSNorm, norm_inputs


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


def test_a_norm_for_matmuls_says_what_it_was_given_until_that_or_its_result_changes() -> None:
    norm = RMSNorm(4, for_matmul=True)
    x = torch.randn(2, 3, 4)
    inputs = norm_inputs(norm(x))
    assert inputs is not None
    assert inputs.x is x
    assert inputs.weight is norm.weight
    torch.testing.assert_close(
        inputs.inverse, x.square().mean(-1, keepdim=True).add(norm.eps or 1.2e-7).rsqrt()
    )
    for change in (lambda normal: normal.detach().add_(1), lambda _: x.add_(1)):
        normal = norm(x)
        assert norm_inputs(normal) is not None
        change(normal)
        assert norm_inputs(normal) is None
    assert norm_inputs(norm(x) + 0) is None
    assert norm_inputs(RMSNorm(4)(x)) is None
    with torch.no_grad():
        assert norm_inputs(norm(x)) is None
    with without_op("rms_norm_linear"):
        assert norm_inputs(norm(x)) is None
    norm.register_forward_hook(lambda *_: None)
    assert norm_inputs(norm(x)) is None


@pytest.mark.parametrize("changed", ["state", "result"])
def test_a_change_after_the_norm_is_in_the_gradient(changed: str) -> None:
    """Of the state: the result is what it was. Of the result: the matmul's gradient is of the changed one."""
    torch.manual_seed(0)
    norm, matrix = RMSNorm(4, for_matmul=True), torch.randn(5, 4).requires_grad_()
    x = torch.randn(2, 3, 4)
    normal = norm(x)
    expected = normal.detach().clone()
    if changed == "state":
        x.add_(1)
    else:
        normal.detach().mul_(2)
        expected = 2 * expected
    found = torch.autograd.grad(shared_linear(normal, matrix).sum(), matrix)
    torch.testing.assert_close(found[0], expected.flatten(0, 1).sum(0).expand(5, 4))


def test_under_autocast_only_a_norm_for_matmuls_is_narrow() -> None:
    x = torch.randn(2, 3, 4)
    wide, narrow = RMSNorm(4), RMSNorm(4, for_matmul=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(x).dtype == torch.float32
        assert torch.equal(narrow(x), wide(x).bfloat16())
