"""The sum of a shared weight's gradient over many loops, in bf16 products: as exact as its terms, or 10 % off."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from loopscope.ops.dispatch import without_op
from loopscope.ops.linear import linear
from loopscope.ops.step_scope import step_scope
from loopscope.ops.wide_sum import summed_wide, wide_sums


def error(uses: int, wide: bool, fast: bool = False) -> float:
    """How far a matrix's gradient over so many uses under autocast is from the sum of its terms, relatively."""
    torch.manual_seed(0)
    module = nn.Linear(64, 64, bias=False)
    inputs = [torch.randn(32, 64).abs() for _ in range(uses)]  # of one sign, as where loops agree
    with nullcontext() if fast else without_op("linear"), step_scope(), wide_sums(wide):
        with torch.autocast("cpu", torch.bfloat16):
            total = torch.stack([linear(x, module).float().sum() for x in inputs]).sum()
        total.backward()
    expected: Tensor = sum(x.bfloat16().double().sum(dim=0) for x in inputs)  # type: ignore[assignment]
    found = module.weight.grad
    assert found is not None
    assert found.dtype == torch.float32
    return float((found.double() - expected).norm() / expected.expand(64, 64).norm())


@pytest.mark.parametrize("uses", [16, 256])
def test_many_uses_are_summed_in_the_weights_own_width(uses: int) -> None:
    assert error(uses, wide=True) < 2e-3
    assert error(uses, wide=False, fast=True) < 2e-3  # a CPU's own operation
    assert error(uses, wide=False) > 2 * error(uses, wide=True)


def test_autocast_alone_loses_a_tenth_of_256_uses() -> None:
    assert error(256, wide=False) > 0.02


def test_nothing_changes_outside_of_a_step_that_asks_for_it() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    assert summed_wide(weight) is weight
    with wide_sums(True):
        assert summed_wide(weight) is weight  # no autocast
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            assert summed_wide(weight) is weight
        with torch.autocast("cpu", torch.bfloat16):
            assert summed_wide(weight).dtype == torch.bfloat16
