"""Calibration: the choice by brute force, the test half never looked at, targets that cannot be met."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loopscope.evaluation.exits.calibration import calibrate_loops, calibrate_perplexity, split
from loopscope.evaluation.exits.curves import point_at
from loopscope.evaluation.exits.record import ExitRecord
from loopscope.evaluation.exits.rules import build_rule
from loopscope.results import Calibration


def record(seed: int, windows: int = 10, loops: int = 4, seq: int = 3, spread: float = 0.5) -> ExitRecord:
    """Losses that fall from loop to loop on average, and scores that say a little about it."""
    draws = torch.Generator().manual_seed(seed)
    losses = (
        3
        - 0.1 * torch.arange(loops)[:, None, None]
        + spread * torch.rand(loops, windows, seq, generator=draws)
    )
    scores = torch.rand(loops - 1, windows, seq, generator=draws)
    names = ("max-probability", "direction-step")
    return ExitRecord(losses, dict.fromkeys(names, scores), torch.ones(windows, seq, dtype=torch.bool), 2.0)


def with_other_end(one: ExitRecord, other: ExitRecord) -> ExitRecord:
    """The first half of one, the second half of another."""
    half = len(one) // 2

    def mix(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a[:, :half], b[:, half:]], dim=1)

    scores = {name: mix(one.scores[name], other.scores[name]) for name in one.scores}
    return ExitRecord(mix(one.losses, other.losses), scores, one.counted, 2.0)


CASES = st.tuples(
    st.integers(0, 500), st.sampled_from(["max-probability", "direction-step", "oracle"]), st.booleans()
)


def chosen(found: ExitRecord, rule: str, more: float | None, budget: float | None, unit: Any) -> Calibration:
    if more is not None:
        return calibrate_perplexity(found, build_rule(rule), unit, more)
    return calibrate_loops(found, build_rule(rule), unit, budget)


@given(CASES, st.sampled_from(["sequence", "token"]), st.floats(0, 0.3), st.floats(1, 3.99))
def test_changing_the_test_part_never_changes_the_threshold(
    case: tuple[int, str, bool], unit: str, more: float, budget: float
) -> None:
    seed, rule, by_loops = case
    target = (None, budget) if by_loops else (more, None)
    first = record(seed)
    one = chosen(first, rule, *target, unit)
    other = chosen(with_other_end(first, record(seed + 1000, spread=3.0)), rule, *target, unit)
    assert one.threshold == other.threshold
    assert one.chosen_on == other.chosen_on
    assert one.met == other.met
    if one.tested_on is not None:
        assert one.tested_on != other.tested_on
        assert one.full_depth != other.full_depth


@given(CASES, st.floats(0, 0.3), st.floats(1, 3.99))
def test_the_choice_is_the_one_that_brute_force_makes(
    case: tuple[int, str, bool], more: float, budget: float
) -> None:
    seed, name, by_loops = case
    found, rule = record(seed), build_rule(name)
    half = found.part(torch.arange(5))
    units = half.units(rule, "sequence")
    strictest_first = sorted(units.scores.flatten().unique().tolist(), reverse=rule.leaves == "above")
    full = point_at(rule, units, rule.never)
    points = [point_at(rule, units, threshold) for threshold in strictest_first]
    if by_loops:
        calibration = calibrate_loops(found, rule, "sequence", budget)
        within = [point for point in points if point.mean_loops <= budget * (1 + 1e-9)]
        expected = full if full.mean_loops <= budget * (1 + 1e-9) else (within[0] if within else None)
    else:
        calibration = calibrate_perplexity(found, rule, "sequence", more)
        expected = None
        for point in points:
            if point.perplexity > full.perplexity * (1 + more) * (1 + 1e-9):
                break
            expected = point if point.mean_loops < full.mean_loops else expected
    assert calibration.met == (expected is not None)
    if expected is not None:
        assert calibration.chosen_on is not None
        assert calibration.chosen_on.mean_loops == expected.mean_loops
        assert calibration.chosen_on.loss == pytest.approx(expected.loss, rel=1e-9)


def test_what_is_reported_is_the_other_part_and_whether_the_target_held() -> None:
    found, rule = record(3, windows=9), build_rule("max-probability")
    calibration = calibrate_perplexity(found, rule, "sequence", 0.2)
    assert calibration.windows == (5, 4)
    assert calibration.allowed == 1.2
    assert calibration.threshold is not None
    half = found.part(torch.arange(4, 8)).units(rule, "sequence")
    assert calibration.tested_on == point_at(rule, half, calibration.threshold)
    assert calibration.full_depth.loss == pytest.approx(float(half.losses[-1].sum() / half.counts.sum()))
    ratio = calibration.tested_on.perplexity / calibration.full_depth.perplexity
    assert calibration.held == (ratio <= 1.2)
    assert f"{100 * (ratio - 1):+.2f} % perplexity" in calibration.why


def test_a_target_that_cannot_be_met_is_said() -> None:
    found = record(0)
    found.losses[-1] = 0.0  # only the last loop is any good
    rule = build_rule("max-probability")
    calibration = calibrate_perplexity(found, rule, "sequence", 0.01)
    assert (calibration.met, calibration.held, calibration.threshold) == (False, None, None)
    assert calibration.tested_on is None
    assert (
        "cannot meet the target: no threshold that leaves early keeps perplexity within 0.01"
        in calibration.why
    )
    late = ExitRecord(
        found.losses, {"kl": torch.full((3, 10, 3), math.inf)}, found.counted, 2.0
    )  # nothing to compare with: it never leaves
    calibration = calibrate_loops(late, build_rule("kl"), "sequence", 2.0)
    assert not calibration.met
    assert "no threshold comes below 4 loops" in calibration.why


@pytest.mark.parametrize("more", [-0.01, math.nan, math.inf, "1", True, None])
def test_a_target_below_nothing_is_refused(more: Any) -> None:
    with pytest.raises(ValueError, match="more is .* from 0 up"):
        calibrate_perplexity(record(0), build_rule("oracle"), "sequence", more)


@pytest.mark.parametrize("budget", [0.5, 4, 4.5, math.nan, "2", True, None])
def test_a_budget_that_no_exit_has_is_refused(budget: Any) -> None:
    with pytest.raises(ValueError, match="budget is .* from 1 up and below 4"):
        calibrate_loops(record(0), build_rule("oracle"), "sequence", budget)


@given(st.integers(2, 200))
def test_every_window_is_in_one_part_and_parts_take_turns(windows: int) -> None:
    chosen, tested = split(windows)
    assert sorted([*chosen.tolist(), *tested.tolist()]) == list(range(windows))
    assert abs(len(chosen) - len(tested)) <= 8
    changes = int((torch.isin(torch.arange(windows), chosen).long().diff() != 0).sum())
    assert changes == (windows - 1) // min(8, windows // 2)


def test_one_window_is_not_enough() -> None:
    with pytest.raises(ValueError, match="windows is 1"):
        calibrate_perplexity(record(0, windows=1), build_rule("oracle"), "sequence")
    found = record(0)
    found.counted[:5] = False
    with pytest.raises(ValueError, match="one part of the windows has no label"):
        calibrate_perplexity(found, build_rule("oracle"), "sequence")
