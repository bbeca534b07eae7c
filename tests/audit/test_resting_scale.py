"""How firmly a scale is held, against losses whose balance is known in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.audit.resting_scale import measure_resting_scale, pull_at
from loopscope.audit.wanted_weight import check_wanted_norm, wanted_scale
from loopscope.objectives.objective import Objective
from loopscope.objectives.penalties import AbstractPenalty, NormPenalty, ScaleAnchor
from loopscope.objectives.placements import Dense
from loopscope.recurrence import AbstractLoopedLM, LoopContext
from loopscope.results import RestingScale
from tests.audit.fixtures import IDS, LABELS, audit, make

DIM, GAIN = 8, 0.6
TOKENS = torch.arange(24).view(4, 6)
ZEROS = torch.zeros_like(TOKENS)


def size_of(vectors: Tensor) -> Tensor:
    return vectors.square().mean(dim=-1).sqrt()


class Wanting(AbstractLoopedLM):
    """One weight, the size of H at every loop; its cross-entropy is 0.2 + `GAIN` / S: it wants GAIN / S."""

    loops = 3

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor(size))
        rows = torch.randn(24, DIM, generator=torch.Generator().manual_seed(0))
        self.register_buffer("rows", rows / size_of(rows)[:, None])

    def embed(self, input_ids: Tensor) -> Tensor:
        rows: Any = self.rows
        return self.size * rows[input_ids]

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden * 1.0

    def carry(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden

    def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden

    def head(self, features: Tensor) -> Tensor:
        """Two logits whose cross-entropy, of the first, is what the model wants it to be."""
        loss = 0.2 + GAIN / size_of(features)
        return torch.stack([torch.zeros_like(loss), loss.expm1().log()], dim=-1)


def trained(penalty: AbstractPenalty, size: float = 1.0) -> RestingScale:
    """What a model has come to under a penalty."""
    model, objective = Wanting(size), Objective(Dense(), [penalty])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        objective(loopscope.unroll(model, TOKENS), ZEROS).total.backward()
        optimizer.step()
    states = list(loopscope.unroll(model.eval(), TOKENS))
    return measure_resting_scale(states, objective, "visible", [])


def test_a_norm_penalty_rests_where_the_cube_root_says() -> None:
    for weight in (0.005, 0.05):
        found = trained(NormPenalty(weight))
        assert found.rms == pytest.approx((GAIN / (2 * weight)) ** (1 / 3), rel=5e-3)
        assert found.pull == pytest.approx(GAIN / found.rms, rel=1e-2)


@pytest.mark.parametrize("penalty", [NormPenalty(0.02), ScaleAnchor(0.1, target=1.5)])
def test_the_weight_that_is_named_leaves_the_size_that_was_wanted(penalty: AbstractPenalty) -> None:
    found = trained(penalty)
    wanted = wanted_scale(found, 1.8 * math.sqrt(DIM))
    assert wanted.weight is not None
    assert wanted.weight_range is not None
    assert wanted.weight_range[0] < wanted.weight < wanted.weight_range[1]
    again = trained(NormPenalty(wanted.weight))
    assert again.l2_norm == pytest.approx(1.8 * math.sqrt(DIM), rel=1e-2)
    assert wanted.cost == pytest.approx(GAIN / again.rms - GAIN / found.rms, abs=5e-3)


def test_pull_is_the_slope_of_the_penalties_at_any_size() -> None:
    squares = torch.tensor([1.0, 4.0, 9.0])
    penalties: list[AbstractPenalty] = [
        NormPenalty(0.3),
        ScaleAnchor(0.1, 2.0, each=True, loop_weights=[1.0, 1.0, 2.0]),
    ]
    for factor in (0.5, 1.0, 3.0):
        up, down = (sum(float(p(squares * (factor * by) ** 2)) for p in penalties) for by in (1.001, 0.999))
        slope = (up - down) / math.log(1.001 / 0.999)
        assert pull_at(penalties, squares, factor) == pytest.approx(slope, rel=1e-4)
    assert pull_at([], squares) == 0


def test_an_audit_says_by_what_a_scale_is_held() -> None:
    blind = audit(make()).resting
    assert (blind.status, blind.pull) == ("held by nothing", 0)
    held = audit(make(), norm_penalty={"weight": 0.01}).resting
    assert held.status == "held by penalties"
    assert held.pull == pytest.approx(2 * 0.01 * held.rms**2, rel=1e-5)
    assert "on how long is trained" in held.why
    below = audit(make(), scale_anchor={"weight": 0.1, "target": 100.0}).resting
    assert below.pull < 0
    assert "push it up" in below.why
    assert audit(make(readout={"kind": "raw"})).resting.status == "held by cross-entropy"
    assert audit(make(carry=["rmsnorm"])).resting.status == "removed"


def test_an_audit_names_a_weight_for_a_norm_that_is_wanted() -> None:
    report = loopscope.audit(make(), IDS, LABELS, "dense+norm_penalty=0.001", wanted_norm=2.0)
    assert report.resting is not None
    wanted = report.resting.wanted
    assert wanted is not None
    assert wanted.weight == pytest.approx(0.001 * (report.resting.l2_norm / 2.0) ** 3, rel=1e-5)
    assert any("For a norm of 2 over all loops, from" in line for line in report.lines())


def test_a_range_of_weights_is_as_wide_as_what_was_seen_and_says_where_nothing_was_tried() -> None:
    """Ten times the weight left it 1.4 to 2.6 times smaller."""
    found = trained(NormPenalty(0.01))
    tenth = wanted_scale(found, found.l2_norm / 10)
    assert tenth.weight_range is not None
    assert tenth.weight_range[0] <= 0.01 * 10 ** (math.log(10) / math.log(2.6)) * 1.01
    assert tenth.weight_range[1] >= 0.01 * 10 ** (math.log(10) / math.log(1.4)) * 0.99
    assert "which way, not how far" not in tenth.why
    for far in (found.l2_norm / 1e3, found.l2_norm * 1e3):
        assert "which way, not how far" in wanted_scale(found, far).why


def test_an_anchor_at_its_target_neither_pulls_nor_pushes() -> None:
    size = audit(make()).resting.rms
    found = loopscope.audit(make(), IDS, LABELS, f"dense+scale_anchor=0.1@{size!r}", wanted_norm=2.0).resting
    assert found is not None
    assert found.wanted is not None
    assert found.why.startswith("They neither pull nor push where it is.")
    assert "it is at the anchor's target" in found.wanted.why


@pytest.mark.parametrize(
    ("settings", "objective", "said"),
    [
        ({}, "dense", "Train once with a norm penalty"),
        ({"carry": ["rmsnorm"]}, "dense", "no penalty is needed"),
        ({"readout": {"kind": "raw"}}, "dense", "not what holds it"),
        ({}, "dense+scale_anchor=0.1@100", "below the anchor's target"),
    ],
)
def test_no_weight_is_named_where_no_penalty_pulls(
    settings: dict[str, Any], objective: str, said: str
) -> None:
    report = loopscope.audit(make(**settings), IDS, LABELS, objective, wanted_norm=2.0)
    assert report.resting is not None
    assert report.resting.wanted is not None
    assert report.resting.wanted.weight is None
    assert said in report.resting.wanted.why


@pytest.mark.parametrize("value", [0, -3.0, math.inf, 1e-9, "50", True])
def test_a_size_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="wanted_norm is .*a number from 1e-06 to"):
        check_wanted_norm(value)


def test_an_audit_refuses_such_a_size_before_it_measures() -> None:
    with pytest.raises(ValueError, match="wanted_norm is -3"):
        loopscope.audit(make(), IDS, LABELS, wanted_norm=-3.0)
