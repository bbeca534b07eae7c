"""The fast verdict against the whole audit's, loop by loop: over published fixtures, and over drawn configs."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from loopscope.audit.carry import measure_carries
from loopscope.audit.fast_verdict import fast_carries, fast_verdict
from loopscope.audit.verdict import loop_verdicts, saturated_loops
from loopscope.audit.visibility import loop_visibilities
from loopscope.config.run_config import RunConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective, build_objective
from loopscope.recurrence import LoopState, unroll
from tests.audit.fixtures import IDS, LABELS, make
from tests.audit.test_published_audit import VERDICTS, Case, case
from tests.plan.test_static_sample import configs

__all__ = ["case"]  # a fixture
DRAWN = 200


def whole(states: Sequence[LoopState], objective: Objective, labels: Tensor) -> list[str]:
    """Every loop's verdict as an audit has it: both sides of every difference, every exit read, grown states too."""
    carried = measure_carries(states)
    return [loop.status for loop in loop_verdicts(loop_visibilities(states, objective, labels), carried)]


def fast(states: Sequence[LoopState], objective: Objective, labels: Tensor) -> list[str]:
    return [loop.status for loop in fast_verdict(states, objective, labels).loops]


def unrolled(model: LoopedTransformer, ids: Tensor) -> list[LoopState]:
    with torch.no_grad():
        return list(unroll(model, ids))


def test_published_models_get_the_verdict_of_a_whole_audit(case: Case) -> None:
    states = case.states()
    found = fast(states, case.objective, case.labels)
    assert found == whole(states, case.objective, case.labels)
    assert found == VERDICTS[case.name]


def agree(values: dict[str, Any], seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = RunConfig(**values)
    torch.manual_seed(seed)
    model = LoopedTransformer(config.model).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
    ids = torch.arange(48).view(3, 16) * 7 % 60
    labels = (ids * 11 + 5) % 60
    states, objective = unrolled(model, ids), build_objective(config.objective)
    assert fast(states, objective, labels) == whole(states, objective, labels)


@pytest.mark.slow
@given(values=configs(), seed=st.integers(0, 2**31))
@settings(max_examples=DRAWN, suppress_health_check=[HealthCheck.too_slow], derandomize=True, deadline=None)
def test_drawn_configs_get_the_verdict_of_a_whole_audit(values: dict[str, Any], seed: int) -> None:
    agree(values, seed)


@given(values=configs(), seed=st.integers(0, 2**31))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow], derandomize=True, deadline=None)
def test_a_few_drawn_configs_do(values: dict[str, Any], seed: int) -> None:
    agree(values, seed)


def test_a_one_sided_carry_is_the_two_sided_one_to_a_thousandth() -> None:
    states = unrolled(make(), IDS)
    for one, two in zip(fast_carries(states), measure_carries(states), strict=True):
        assert one.mean == pytest.approx(two.mean, abs=1e-3)
        assert one.gain == two.gain


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({"readout": "rmsnorm"}, 0),
        ({"readout": "raw"}, 3),
        (
            {"readout": "rmsnorm", "norm_eps": 1.0},
            6,
        ),  # whose eps shows the scale: as it is, and thirty times as large
    ],
)
def test_the_head_is_asked_where_a_readout_shows_the_scale(
    settings: dict[str, Any], read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only to see that no loss is exactly 0 where none does: `FEW` tokens."""
    model = make(**settings)
    states = unrolled(model, IDS)
    asked: list[int] = []
    own = model.head

    def head(features: Tensor) -> Tensor:
        asked.append(features[..., 0].numel())
        return own(features)

    monkeypatch.setattr(model, "head", head)
    monkeypatch.setattr(model, "head_matrix", lambda: None)
    objective = build_objective(ObjectiveConfig())
    fast_verdict(states, objective, LABELS)
    assert sum(count == IDS.numel() for count in asked) == (read or 1)


@pytest.mark.parametrize("carry", [["damping"], []])
def test_slopes_near_the_threshold_are_measured_twice(carry: list[str]) -> None:
    """A decay of 0.985 is nearer to 0.99 than a one-sided slope may decide."""
    model = make(carry=carry)
    states = unrolled(model, IDS)
    objective = build_objective(ObjectiveConfig())
    assert fast(states, objective, LABELS) == whole(states, objective, LABELS)


def test_losses_of_exactly_zero_are_found() -> None:
    model = make()
    states = unrolled(model, IDS)
    with torch.no_grad():
        sure = LoopedTransformer.head

        class Certain(LoopedTransformer):
            def head(self, features: Tensor) -> Tensor:
                logits = sure(self, features)
                return logits * 0 + torch.full_like(logits, -1e4).index_fill(-1, torch.tensor([3]), 1e4)

            def head_matrix(self) -> None:
                return None

    model.__class__ = Certain
    labels = torch.full_like(IDS, 3)
    objective = build_objective(ObjectiveConfig())
    found = fast_verdict(states, objective, labels)
    seen = loop_visibilities(states, objective, labels)
    with torch.no_grad():
        assert found.saturated == saturated_loops(seen, objective.split(states, labels)) == [1, 2, 3]
    assert not fast_verdict(states, objective, LABELS).saturated
