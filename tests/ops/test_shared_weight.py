"""A shared matrix's gradient, shared_weight over its uses, beside autograd's own sum."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopscope.ops.linear import shared_linear
from loopscope.ops.rms_norm import RMSNorm
from loopscope.ops.shared_weight import shared_weight
from loopscope.ops.step_scope import step_scope
from loopscope.ops.swiglu import swiglu

USES = 3


@pytest.fixture
def weights() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(0.3 * torch.randn(shape)) for shape in ((24, 8), (24, 8), (8, 24))]


def ours(x: Tensor, weights: list[nn.Parameter]) -> Tensor:
    for _ in range(USES):
        x = x + swiglu(RMSNorm(8, for_matmul=True)(x), *weights)
    return x


def plain(x: Tensor, weights: list[nn.Parameter]) -> Tensor:
    gate, up, down = weights
    for _ in range(USES):
        normal = RMSNorm(8)(x)
        x = x + (nn.functional.silu(normal @ gate.T) * (normal @ up.T)) @ down.T
    return x


def states() -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()


def agree(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", [nullcontext, step_scope])
def test_it_is_the_sum_over_uses(weights: list[nn.Parameter], scope: Any) -> None:
    x = states()
    with scope():
        found = torch.autograd.grad(ours(x, weights).square().sum(), weights)
    agree(found, torch.autograd.grad(plain(x, weights).square().sum(), weights))


def test_a_pass_that_wants_no_weight_leaves_nothing_for_the_next(weights: list[nn.Parameter]) -> None:
    x = states()
    expected = torch.autograd.grad(plain(x, weights).square().sum(), weights)
    with step_scope():
        total = ours(x, weights).square().sum()
        torch.autograd.grad(total, [x], retain_graph=True)
        assert not any(shared_weight(weight)._sums for weight in weights)
        agree(torch.autograd.grad(total, weights, retain_graph=True), expected)
        agree(torch.autograd.grad(total, weights), expected)


def test_tensors_that_share_their_numbers_have_gradients_of_their_own(weights: list[nn.Parameter]) -> None:
    other, x = [nn.Parameter(weight.data) for weight in weights], states()
    with step_scope():
        total = swiglu(x, *weights).square().sum() + 3 * swiglu(x, *other).square().sum()
        found = torch.autograd.grad(total, [*weights, *other])
    agree([3 * one for one in found[:3]], found[3:])


def test_uses_that_no_loss_reaches_are_not_waited_for(weights: list[nn.Parameter]) -> None:
    x = states()
    with step_scope():
        first = x + swiglu(RMSNorm(8, for_matmul=True)(x), *weights)
        swiglu(RMSNorm(8, for_matmul=True)(first), *weights)  # of which nothing comes
        found = torch.autograd.grad(first.square().sum(), weights)
    normal = RMSNorm(8)(x)
    once = x + (nn.functional.silu(normal @ weights[0].T) * (normal @ weights[1].T)) @ weights[2].T
    agree(found, torch.autograd.grad(once.square().sum(), weights))


def test_a_hook_on_a_weight_sees_the_whole_gradient_once(weights: list[nn.Parameter]) -> None:
    x, seen = states(), []
    expected = torch.autograd.grad(plain(x, weights).square().sum(), weights[:1])
    weights[0].register_hook(lambda grad: seen.append(grad.clone()))
    with step_scope():
        ours(x, weights).square().sum().backward()
    assert len(seen) == 1
    agree(seen, expected)


def test_second_derivatives_reach_the_weights(weights: list[nn.Parameter]) -> None:
    def penalty(way: Any) -> Tensor:
        x = states()
        (slope,) = torch.autograd.grad(way(x, weights).square().sum(), [x], create_graph=True)
        return slope.square().mean()

    with step_scope():
        found = torch.autograd.grad(penalty(ours), weights)
    agree(found, torch.autograd.grad(penalty(plain), weights))


def test_loops_share_one_narrow_gradient_in_the_weights_own_width(weights: list[nn.Parameter]) -> None:
    """In bf16 the sum is fp32's: of many small shares beside a large one, none is lost."""
    gate, up, down = weights
    large, small = torch.randn(1, 4, 8), 0.3 * torch.randn(1, 4, 8)
    with torch.autocast("cpu", torch.bfloat16), step_scope():
        parts = [swiglu(large, gate, up, down).float().sum() * 8]
        parts += [swiglu(small, gate, up, down).float().sum() for _ in range(64)]
        (found,) = torch.autograd.grad(torch.stack(parts).sum(), [down])
        one, other = (
            torch.autograd.grad(swiglu(x, gate, up, down).float().sum(), [down])[0] for x in (large, small)
        )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, 8 * one + 64 * other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_operations_of_two_kinds_may_share_a_matrix(weights: list[nn.Parameter], precision: str) -> None:
    """One gathers it turned, the other straight."""
    gate, up, down = weights
    wide = torch.randn(6, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"), step_scope():
        total = swiglu(wide, gate, up, down).sum() + shared_linear(shared_linear(wide, gate), down).sum()
        found = torch.autograd.grad(total, weights)
    inner = nn.functional.silu(wide @ gate.T) * (wide @ up.T) + wide @ gate.T
    expected = torch.autograd.grad((inner @ down.T).sum(), weights)
    rtol = 1e-4 if precision == "fp32" else 0.03
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(other.abs().max()))
