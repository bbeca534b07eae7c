"""The prognosis on maps whose fate is known in closed form, and on what nothing can be told of."""

from dataclasses import astuple
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import loopscope
from loopscope.evaluation import depth_curves, prognose
from loopscope.evaluation.depth.prognosis import judge_signs
from loopscope.evaluation.depth.prognosis_rule import PERSISTENCE, movements
from loopscope.evaluation.depth.prognosis_signs import loop_signs
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import AbstractLoopedLM, LoopContext, unroll
from loopscope.results import LoopSigns, fate_of
from tests.evaluation.depth.known_maps import LOOPS, Toy, text, told_and_true
from tests.model.fixtures import TINY

KNOWN = [
    ("contracting", True, "settles", "it rests"),
    ("rotating", True, "breaks", "it goes on turning"),
    ("approaching", True, "improves", "It is on its way down"),
    ("expanding", True, "breaks", "the map expands it"),
    ("flipping", True, "settles", "back the way it came"),
    ("growing", True, "settles", "that alone does nothing to an exit"),
    ("growing", False, "breaks", "the readout reads it"),
]


@pytest.mark.parametrize(("kind", "blind", "fate", "why"), KNOWN)
def test_maps_of_known_fate(kind: str, blind: bool, fate: str, why: str) -> None:
    told, twice, four_times = told_and_true(Toy(kind, blind))
    assert fate_of(twice, four_times) == fate, "the map itself"
    assert told.fate == fate
    assert why in told.why
    assert told.scale_blind == blind
    assert [row.loops for row in told.at] == [8, 16]
    assert all(row.low <= row.change <= row.high for row in told.at)


def test_a_scale_that_fp32_cannot_hold_breaks_though_the_readout_divides_by_it() -> None:
    model, (ids, labels) = Toy("swelling"), text()
    told = prognose(model, ids, labels)
    assert told.fate == "breaks"
    assert "its square passes fp32's largest number near loop 14" in told.why
    with torch.no_grad():
        emptied = [state.loop for state in unroll(model, ids, 16) if not bool(state.features().any())]
    assert emptied[0] == 15


@pytest.mark.parametrize(("factor", "fate"), [(2000.0, "breaks"), (5000.0, "breaks"), (1e6, "not told")])
def test_a_state_whose_square_fp32_does_not_hold_is_told_and_raises_nothing(factor: float, fate: str) -> None:
    class Huge(Toy):
        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return hidden * factor

    model, (ids, labels) = Huge("contracting"), text()
    told = prognose(model, ids, labels)
    assert told.fate == fate
    assert "the square of that" in told.why
    with torch.no_grad():
        assert all(bool(torch.isfinite(state.hidden).all()) for state in unroll(model, ids, 6))
    if fate == "breaks":
        assert loopscope.audit(model, ids, labels).verdict
    else:
        with pytest.raises(ValueError, match="the state's square is not finite in fp32 at loop 4 of 4"):
            loopscope.audit(model, ids, labels)


@pytest.mark.parametrize("loops", [12, 16, 32])
def test_a_model_at_rest_is_never_told_to_move(loops: int) -> None:
    """What rounding leaves of its last steps has any ratio, and must not be followed."""
    told, _, four_times = told_and_true(Toy("contracting", loops=loops))
    assert abs(four_times) < 2e-3
    assert told.fate == "settles"
    assert all(abs(row.change) < 0.01 for row in told.at)


def test_no_loss_is_foretold_below_zero() -> None:
    """A loss that falls by as much in every loop is near 0 at K + 2, and cannot go on."""
    signs = [LoopSigns(loop, 0.7 - 0.1 * loop, 1.0, 0.0, 0.1, 1.0, 0.001, 1.0) for loop in range(1, 7)]
    told = judge_signs(signs, 4, blind=True)
    assert told.fate == "improves"
    assert told.at[1].change == told.at[1].low == pytest.approx(-0.3)


def test_a_scale_is_blamed_for_the_steps_that_it_makes_shorter_and_for_no_others() -> None:
    def signs(growth: float) -> list[LoopSigns]:
        return [
            LoopSigns(loop, 3.0, 1.0, growth / loop, 0.2 / loop, 0.9, 0.01 / loop**2, 1.0)
            for loop in range(1, 7)
        ]

    assert "as a growing scale makes them" in judge_signs(signs(1.0), 4, blind=True).why
    resting = judge_signs(signs(0.0), 4, blind=True).why
    assert "growing scale" not in resting
    assert "0.83 of the step before: where that goes on, it comes to rest" in resting


def obvious_signs(model: AbstractLoopedLM, ids: Tensor, labels: Tensor, loops: int) -> list[LoopSigns]:
    """The slow way: a whole unroll per depth, all logits, torch's own functions."""
    rows: list[LoopSigns] = []
    states: list[Tensor] = []
    logs: list[Tensor] = []
    counted = labels != -100
    for loop in range(1, loops + 1):
        with torch.no_grad():
            state = list(unroll(model, ids, loop))[-1]
            logs.append(state.logits()[counted].log_softmax(dim=-1))
        states.append(state.hidden)
        direction = [F.normalize(hidden, dim=-1) for hidden in states]
        norms = [hidden.norm(dim=-1) for hidden in states]
        steps = [after - before for before, after in pairwise(direction)]
        rows.append(
            LoopSigns(
                loop,
                float(F.nll_loss(logs[-1], labels[counted])),
                float(norms[-1].mean()) / states[-1].shape[-1] ** 0.5,
                float((norms[-1].log() - norms[-2].log()).mean()) if steps else 0.0,
                float(steps[-1].norm(dim=-1).mean()) if steps else 0.0,
                float(F.cosine_similarity(steps[-1], steps[-2], dim=-1).mean()) if len(steps) > 1 else 0.0,
                float(F.kl_div(logs[-2], logs[-1], log_target=True, reduction="batchmean")) if steps else 0.0,
                float(torch.distributions.Categorical(logits=logs[-1]).entropy().mean()),
            )
        )
    return rows


SETTINGS: list[dict[str, Any]] = [{}, {"readout": "final-only"}, {"loop_embedding": "modulation"}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_signs_are_those_of_a_run_to_each_depth(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(**{**TINY, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    ids, labels = torch.randint(61, (2, 3, 16), generator=torch.Generator().manual_seed(0))
    labels[0, :5] = -100
    loops = model.loops + 2
    found, expected = loop_signs(model, ids, labels, loops), obvious_signs(model, ids, labels, loops)
    assert len(found) == loops
    for row, other in zip(found, expected, strict=True):
        assert astuple(row) == pytest.approx(astuple(other), rel=1e-3, abs=1e-5)


def test_steps_are_followed_along_half_the_power_that_they_show() -> None:
    """Steps that fall as 1/k, straight on, and a loss that rises as the way is long."""
    lengths = [1 / loop for loop in range(1, 7)]
    losses = list(accumulate(lengths))
    signs = [
        LoopSigns(loop, losses[loop - 1], 1.0, 0.0, 0.1, 1.0, lengths[loop - 1] ** 2, 1.0)
        for loop in range(1, 7)
    ]
    for loops in (5, 6, 8, 16):
        followed = sum((1 / 6) * (loop / 6) ** -PERSISTENCE for loop in range(7, loops + 1))
        way = sum(lengths[4:loops]) + followed
        found = movements(signs, 4, loops)
        assert found["loss"] == pytest.approx(way, rel=1e-9)
        assert found["moved"] == pytest.approx(way**2, rel=1e-9)


@pytest.mark.parametrize("straight", [1.0, 0.9, 0.0, -0.5, -1.0])
def test_a_way_is_as_far_as_its_correlated_steps_lead(straight: float) -> None:
    """Against the double sum over pairs of steps, each pair with the cosine to the power of its distance."""
    signs = [LoopSigns(loop, 0.0, 1.0, 0.0, 0.1, straight, 0.04, 1.0) for loop in range(1, 7)]
    expected = sum(0.04 * straight ** abs(i - j) for i in range(4) for j in range(4))
    assert movements(signs, 4, 8)["moved"] == pytest.approx(expected, abs=1e-12)


class Broken(Toy):
    """Fails from one loop on: in its numbers, or by an error."""

    def __init__(self, first: int, raises: bool, loops: int = LOOPS) -> None:
        super().__init__("contracting", loops=loops)
        self.first, self.raises = first, raises

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        if loop >= self.first and self.raises:
            raise IndexError("there is no such loop")
        return super().core(hidden, loop, context) / (0.0 if loop >= self.first else 1.0)


def test_what_nothing_can_be_told_of() -> None:
    ids, labels = text()
    one = prognose(Toy("contracting", loops=1), ids, labels)
    assert (one.fate, one.at) == ("not told", ())
    assert "trained with 1 loop" in one.why
    early = prognose(Broken(3, raises=False), ids, labels)
    assert early.fate == "not told"
    assert "At loop 3 of 4 it is not finite in fp32" in early.why
    with pytest.raises(IndexError):  # at a depth that it was trained to: that is no matter of depth
        prognose(Broken(3, raises=True), ids, labels)


@pytest.mark.parametrize("first", [5, 6])
def test_a_model_that_leaves_the_finite_right_past_its_depth_breaks(first: int) -> None:
    told = prognose(Broken(first, raises=False), *text())
    assert told.fate == "breaks"
    assert f"At loop {first}, right after its trained depth 4, it is not finite" in told.why


@pytest.mark.parametrize("first", [5, 6])
def test_a_model_that_does_not_run_deeper_is_not_told(first: int) -> None:
    told = prognose(Broken(first, raises=True), *text())
    assert told.fate == "not told"
    assert f"does not run {first} loops" in told.why


def test_two_loops_past_a_depth_of_two_are_measured_themselves() -> None:
    model = Toy("rotating", loops=2)
    ids, labels = text()
    losses = [row.loss for row in depth_curves(model, [(ids, labels)], 1.0, 4)[0].per_loop]
    told = prognose(model, ids, labels)
    assert told.at[0].change == pytest.approx(losses[3] - losses[1], rel=1e-4)
    assert told.at[1].loops == 8


def test_the_model_is_left_as_it_was_and_half_precision_is_read_in_fp32() -> None:
    ids, labels = text()
    model = Toy("rotating").train()
    expected = prognose(model, ids, labels)
    assert model.training
    half = Toy("rotating").to(torch.bfloat16)
    half.table.data = model.table.data.to(torch.bfloat16)
    assert prognose(half, ids, labels).signs[0].cross_entropy == pytest.approx(
        expected.signs[0].cross_entropy, rel=2e-2
    )
    assert half.table.dtype == torch.bfloat16


BAD = [
    (torch.zeros(2, 4, dtype=torch.long), torch.full((2, 4), -100), "every label is -100"),
    (torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long), "labels"),
    (torch.full((1, 4), 99), torch.zeros(1, 4, dtype=torch.long), "99"),
]


@pytest.mark.parametrize(("ids", "labels", "says"), BAD)
def test_bad_input(ids: Tensor, labels: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prognose(Toy("rotating"), ids, labels)
    with pytest.raises(ValueError, match="not a looped model"):
        prognose(torch.nn.Linear(2, 2), ids, labels)
