"""Carry, gain and slope against recurrences whose answers are known."""

from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.audit.expansion import fit
from loopscope.model.looped import LoopedTransformer
from tests.audit.fixtures import IDS, LABELS, audit, carried, make


@pytest.mark.smoke
def test_carry_of_known_recurrences() -> None:
    """h -> a·h + b: d log s' / d log s = a·s / (a·s + b) for a constant state; a norm between loops gives 0."""

    class Affine(LoopedTransformer):
        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return 0.5 * hidden + 3.0

        def embed(self, input_ids: Tensor) -> Tensor:
            return torch.full((*input_ids.shape, 32), 4.0)

    config = make().config
    found = carried(Affine(config), 2)
    # H_1 = 5, H_2 = 5.5: from H_1, 0.5·5 / 5.5.
    assert found[0].mean == pytest.approx(2.5 / 5.5, rel=1e-3)
    assert found[0].spread == pytest.approx(0, abs=1e-4)
    normed = carried(make(carry=("layernorm",)))
    assert max(abs(carry.mean) for carry in normed) < 1e-3
    damped = carried(make(carry=("damping",), damping=0.6))
    assert all(carry.gain == pytest.approx(0.6, rel=1e-4) for carry in damped)
    assert all(carry.slope == pytest.approx(0.6, rel=1e-4) for carry in damped)
    assert all(carry.slope == pytest.approx(0, abs=1e-3) for carry in normed)


def test_a_decay_beside_an_injection_is_damped() -> None:
    """The step is affine: what it injects says nothing of how much of the state it leaves."""

    class Injected(LoopedTransformer):
        def carry(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return 0.5 * hidden + 3 * context.embedded

    report = loopscope.audit(Injected(make().config), IDS, LABELS)
    assert report.carry[0].gain > 1
    assert report.carry[0].slope == pytest.approx(0.5, rel=1e-4)
    assert report.verdict == "damped"


def test_a_large_state_is_carried_whole() -> None:
    model = make()
    with torch.no_grad():
        model.token_embedding.weight.mul_(1e4)
    assert all(carry.mean == pytest.approx(1, abs=0.01) for carry in carried(model))


@pytest.mark.parametrize("inside", [False, True])
def test_a_decay_is_seen_wherever_it_stands(inside: bool) -> None:
    """Where a stranger's module ends is no part of the mathematics."""

    class Decaying(LoopedTransformer):
        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            start = 0.9 * hidden if inside and loop > 1 else hidden
            return super().core(start, loop, context)

        def carry(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return hidden if inside else 0.9 * hidden

    report = loopscope.audit(Decaying(make().config), IDS, LABELS)
    assert report.verdict == "damped"
    assert report.carry[0].slope == pytest.approx(0.9, rel=1e-3)
    assert audit(make()).carry[0].slope == pytest.approx(1.0, rel=1e-3)


def test_lines_are_fitted_by_least_squares() -> None:
    line = fit([1.0, 2.0, 3.0, 4.0], [3.0, 5.0, 7.0, 9.0])
    assert (line.slope, line.intercept, line.r_squared) == pytest.approx((2, 1, 1))
    assert fit([1.0, 2.0], [1.0, 2.0]) is None
    assert fit([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
