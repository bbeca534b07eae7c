"""Records and curves: chunks change nothing, sweeps are every threshold, both ways to lose a token are counted."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import loopscope.evaluation.exits.record as exit_record
from loopscope.evaluation.exits.curves import (
    Sweep,
    exit_curve,
    exit_point,
    exits_at,
    fixed_points,
    point_at,
    thresholds,
)
from loopscope.evaluation.exits.record import Units, record_exits
from loopscope.evaluation.exits.rules import AbstractExitRule, build_rule
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.token_loss import plain_cross_entropy
from loopscope.recurrence import unroll

RULES = ["logit-margin", "max-probability", "kl", "direction-step", "gate", "shortlist-margin"]


def made(**changes: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    tiny = {"dim": 16, "layers": 1, "heads": 2, "loops": 4, "vocabulary": 50, "sequence": 12}
    return LoopedTransformer(ModelConfig(**{**tiny, "exit_gate": True, **changes})).eval()


def tokens(windows: int = 7) -> tuple[Tensor, Tensor]:
    drawn = torch.randint(50, (windows, 13), generator=torch.Generator().manual_seed(3))
    labels = drawn[:, 1:].clone()
    labels[0, :9] = -100
    return drawn[:, :-1], labels


def units_of(scores: Tensor, losses: Tensor) -> Units:
    return Units(losses.double(), torch.ones(losses.shape[1], dtype=torch.long), scores.double(), 2.0)


def test_a_record_has_every_exits_losses_and_batches_and_chunks_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (ids, labels) = made(), tokens()
    rules = [build_rule(name) for name in RULES]
    whole = record_exits(model, [(ids, labels)], rules, 2.0)
    for state in unroll(model, ids):
        with torch.no_grad():
            expected = plain_cross_entropy(model.head, state.features(), labels)
        torch.testing.assert_close(whole.losses[state.loop - 1], expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(exit_record, "CHUNK_ELEMENTS", 150)
    parts = record_exits(model, zip(ids.split(2), labels.split(2), strict=True), rules, 2.0)
    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-5, atol=1e-5)
    assert torch.equal(parts.counted, labels != -100)
    for name in RULES:
        assert whole.scores[name].shape == (3, *ids.shape)
        torch.testing.assert_close(parts.scores[name], whole.scores[name], rtol=1e-4, atol=1e-5)


def test_permuting_the_windows_changes_nothing() -> None:
    model, (ids, labels) = made(), tokens()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    for name in RULES:
        rule = build_rule(name)
        straight = exit_curve(record_exits(model, [(ids, labels)], [rule], 2.0), rule, "sequence")
        mixed = exit_curve(record_exits(model, [(ids[order], labels[order])], [rule], 2.0), rule, "sequence")
        inner = slice(2, -2)  # at the ends a score equals its own threshold, to rounding
        for one, other in zip(straight.points[inner], mixed.points[inner], strict=True):
            assert one.left_at == other.left_at
            assert one.loss == pytest.approx(other.loss, rel=1e-5)


def test_points_count_losses_over_labels_and_loops_over_units() -> None:
    model, (ids, labels) = made(), tokens()
    record = record_exits(model, [(ids, labels)], [], 2.0)
    fixed = fixed_points(record)
    for loop, point in enumerate(fixed, start=1):
        loss = float(record.losses[loop - 1].double().sum() / (labels != -100).sum())
        assert point.loss == pytest.approx(loss, rel=1e-9)
        assert point.perplexity == pytest.approx(math.exp(loss), rel=1e-9)
        assert point.bits_per_byte == pytest.approx(loss / math.log(2) / 2.0, rel=1e-9)
        assert point.mean_loops == loop
        assert point.left_at[loop - 1] == sum(point.left_at) == 1.0
    rule = build_rule("fixed")
    assert isinstance(rule, AbstractExitRule)
    named = record_exits(model, [(ids, labels)], [rule], 2.0)
    for unit in ("sequence", "token"):
        for loop, point in enumerate(fixed, start=1):
            found = point_at(rule, named.units(rule, unit), float(loop))  # type: ignore[arg-type]
            assert found.left_at == point.left_at
            assert found.loss == pytest.approx(point.loss, rel=1e-9)


def test_the_thresholds_are_numpys_quantiles() -> None:
    scores = torch.randn(3, 11, generator=torch.Generator().manual_seed(0)).double()
    scores[0, :2] = torch.inf
    found = thresholds(units_of(scores, torch.zeros(4, 11)))
    finite = scores[scores.isfinite()].numpy()
    np.testing.assert_allclose(found[1:-1], np.quantile(finite, np.linspace(0, 1, 11)))
    assert found[0] < finite.min()
    assert found[-1] > finite.max()


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 10_000), st.sampled_from(["above", "below"]))
def test_a_sweep_is_every_threshold(count: int, depth: int, seed: int, side: str) -> None:
    draws = torch.Generator().manual_seed(seed)
    scores = torch.randn(depth - 1, count, generator=draws).mul(2).round()  # ties within and between units
    if depth > 2:
        scores[0] = torch.inf if side == "below" else -torch.inf
    units = units_of(scores, torch.rand(depth, count, generator=draws))
    rule = build_rule("logit-margin" if side == "above" else "kl")
    sweep = Sweep.of(rule, units)
    for threshold, loops, loss in zip(*vars(sweep).values(), strict=True):
        point = exit_point(units, exits_at(rule, units, float(threshold)), float(threshold))
        assert point.mean_loops == pytest.approx(float(loops))
        assert point.loss == pytest.approx(float(loss), rel=1e-9)
    assert sweep.mean_loops[0] == depth
    reached = {exits_at(rule, units, float(t)).sum().item() for t in sweep.thresholds}
    tried = {exits_at(rule, units, float(t)).sum().item() for t in scores[scores.isfinite()].unique()}
    assert tried <= reached, "no threshold gives anything that the sweep has not"
    assert bool((sweep.mean_loops[1:] < sweep.mean_loops[:-1]).all())


def test_the_oracle_is_a_bound() -> None:
    model, (ids, labels) = made(), tokens()
    oracle = build_rule("oracle")
    record = record_exits(model, [(ids, labels)], [oracle, build_rule("logit-margin")], 2.0)
    for unit in ("sequence", "token"):
        units = record.units(oracle, unit)  # type: ignore[arg-type]
        best = point_at(oracle, units, 0.0)
        assert best.loss == pytest.approx(float(units.losses.amin(dim=0).sum() / units.counts.sum()))
        curve = exit_curve(record, build_rule("logit-margin"), unit)  # type: ignore[arg-type]
        assert all(best.loss <= point.loss + 1e-9 for point in curve.points)
        assert exit_curve(record, oracle, unit).bound  # type: ignore[arg-type]
        assert not curve.bound


def test_scores_that_are_not_numbers_are_refused() -> None:
    model, (ids, labels) = made(), tokens()
    with torch.no_grad():
        model.token_embedding.weight[7] = torch.inf
    ids[2, 5] = 7
    for name in ("logit-margin", "direction-step"):
        with pytest.raises(ValueError, match=f"exit rule '{name}' has scores that are not numbers at loop 1"):
            record_exits(model, [(ids, labels)], [build_rule(name)], 2.0)


def test_nothing_to_evaluate_is_refused() -> None:
    model, (ids, labels) = made(), tokens()
    with pytest.raises(ValueError, match="nothing to evaluate exits on"):
        record_exits(model, [], [], 2.0)
    with pytest.raises(ValueError, match="nothing to evaluate exits on"):
        record_exits(model, [(ids, torch.full_like(labels, -100))], [], 2.0)
    with pytest.raises(ValueError, match="needs a model with an exit gate"):
        record_exits(made(exit_gate=False), [(ids, labels)], [build_rule("gate")], 2.0)


def test_a_depth_of_one_has_nothing_to_decide() -> None:
    model, (ids, labels) = made(), tokens()
    rule = build_rule("logit-margin")
    record = record_exits(model, [(ids, labels)], [rule], 2.0, loops=1)
    assert exit_curve(record, rule, "sequence").points == ()
    assert Sweep.of(rule, record.units(rule, "token")).mean_loops.tolist() == [1.0]


def test_losses_that_are_not_finite_are_a_sentence() -> None:
    model = made()
    with torch.no_grad():
        model.layers[0].feed_forward.up.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="the loss of loop 1 is not finite on this text, so exits cannot be"):
        record_exits(model, [tokens()], [build_rule("oracle")], 1.0)
