"""What is the same to rounding is not computed again, and what comes of it is what the plain way gives."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from loopscope.audit.carry import measure_carries
from loopscope.audit.interventions import radial_clamp
from loopscope.audit.patched_model import NormBetweenLoops
from loopscope.audit.sameness import same_to_rounding
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import next_hidden, unroll, unroll_from
from tests.audit.fixtures import IDS, LABELS, make


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The loops that a looped transformer runs, as they come."""
    ran: list[int] = []
    own = LoopedTransformer.core

    def core(self: LoopedTransformer, hidden: Tensor, loop: int, context: Any) -> Tensor:
        ran.append(loop)
        return own(self, hidden, loop, context)

    monkeypatch.setattr(LoopedTransformer, "core", core)
    return ran


def test_vectors_are_the_same_up_to_a_few_roundings() -> None:
    vectors = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    assert same_to_rounding(vectors * (1 + 1e-7), vectors)
    other = vectors.clone()
    other[1, 5] *= 1 + 1e-5
    assert not same_to_rounding(other, vectors)
    assert not same_to_rounding(vectors * torch.nan, vectors)
    assert not same_to_rounding(vectors.double(), vectors)


def test_a_loop_is_not_run_again_where_a_norm_hands_on_the_same(cores: list[int]) -> None:
    model = make()
    with torch.no_grad():
        first = next(iter(unroll(model, IDS)))
        large = replace(first, hidden=first.hidden * 100, model=NormBetweenLoops(model))
        states = [large, *unroll_from(large, large.hidden)]
    cores.clear()
    found = measure_carries(states[:2])[0]
    assert 2 not in cores  # of loop 1, whose next state is known
    assert found.mean == found.slope == 0.0
    with torch.no_grad():
        ups = [next_hidden(large, large.hidden * factor) for factor in (0.99, 1.01, 1000.0)]
    for up in ups:
        torch.testing.assert_close(up, states[1].hidden, rtol=1e-4, atol=1e-5)


def test_a_loop_whose_carry_keeps_the_scale_is_run_for_every_size(cores: list[int]) -> None:
    with torch.no_grad():
        states = list(unroll(make(), IDS))
    cores.clear()
    measure_carries(states)
    assert len(cores) == 4 * len(states)


@pytest.mark.parametrize("carry", [(), ("layernorm",)])
def test_clamps_that_begin_at_the_second_loop_s_own_output_are_those_of_a_run(
    carry: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, cores: list[int]
) -> None:
    model = make(carry=carry)
    with torch.no_grad():
        states = list(unroll(model, IDS))
    cores.clear()
    found = radial_clamp(states, LABELS)
    assert 2 not in cores
    monkeypatch.setattr(LoopedTransformer, "stateless", False)
    assert radial_clamp(states, LABELS) == found
    assert 2 in cores
