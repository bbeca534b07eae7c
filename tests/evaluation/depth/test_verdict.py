"""Verdicts on depth: the stretch near the best loop, and whether more loops help, over seeds or for one."""

import math
import re

import numpy as np
import pytest

from loopscope.evaluation.compare.condition import group_evaluations
from loopscope.evaluation.depth.verdict import depth_verdict, judge_change, stretch
from loopscope.results import DepthVerdict, Interval, decode, to_json
from loopscope.results.codec import json_object
from tests.evaluation.fixtures import BYTES, made

FLAT = math.log(1.005)  # half a percent of perplexity


def verdict(*seeds: list[float], windows: int = 30, spread: float = 0.0) -> DepthVerdict:
    """Of a condition trained at 2 loops, from mean losses per loop for each seed."""
    noise = spread * np.random.default_rng(0).standard_normal((len(seeds), len(seeds[0]), windows))
    made_seeds = [
        made(
            "dense/raw",
            number,
            np.array(losses)[:, None] + noise[number] - noise[number].mean(axis=1)[:, None],
        )
        for number, losses in enumerate(seeds)
    ]
    (condition,) = group_evaluations(made_seeds)
    return depth_verdict(condition)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0, 2.0, 2.5, 2.5], (2, 2, 2)),
        ([2.0 + FLAT, 2.0, 2.0 + FLAT, 2.5], (2, 1, 3)),
        ([2.0, 2.5, 2.0 + FLAT, 2.0], (1, 1, 1)),  # a loop beyond a worse one is not of the stretch
        ([2.0, math.nan, 1.9, 1.9 + FLAT], (3, 3, 4)),
    ],
)
def test_the_stretch_near_the_best_loop(losses: list[float], expected: tuple[int, int, int]) -> None:
    assert stretch(losses) == expected


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(-0.1, -0.2, -0.01), "helps"),
        (Interval(0.1, 0.01, 0.2), "hurts"),
        (Interval(0.1, -0.1, 0.3), "unclear"),
        (Interval(0.001, 0.0005, 0.0015), "holds"),  # apart from 0, and too small to matter
        (Interval(0.1), "unclear"),
        (Interval(math.inf), "hurts"),
    ],
)
def test_the_interval_decides(interval: Interval, expected: str) -> None:
    assert judge_change(interval, tolerance=0.004) == expected


def test_over_seeds() -> None:
    """Changes of 0.1, 0.2, 0.3 nats from the trained loop 2 to 4: the interval of Student's t, by hand."""
    found = verdict([3.0, 2.0, 2.0, 2.1], [3.0, 2.0, 2.0, 2.2], [3.0, 2.0, 1.9, 2.3])
    bits = 1 / math.log(2) / BYTES
    half = 4.3027 * 0.1 / math.sqrt(3) * bits
    assert found.change.mean == pytest.approx(0.2 * bits)
    assert found.change.low == pytest.approx(0.2 * bits - half, rel=1e-4)
    assert (found.seeds, found.beyond) == (3, "hurts")  # in every seed, though the interval has both signs
    assert (
        f"raises the loss in every seed, from {0.1 * bits:+.4f} to {0.3 * bits:+.4f}; by how much"
        in found.why
    )
    assert (found.best, found.best_by_seed) == (
        Interval(3.0),
        (2, 2, 3),
    )  # of the mean loss: 2, 2, 1.9 at loop 3
    assert found.best_loop == "the seeds disagree (2, 3)"
    assert "3 seeds" in found.why
    assert verdict([3.0, 2, 2, 2.2], [3.0, 2, 2, 2.21], [3.0, 2, 2, 2.19]).beyond == "hurts"
    assert verdict([3.0, 2, 2, 1.8], [3.0, 2, 2, 1.79], [3.0, 2, 2, 1.81]).beyond == "helps"
    assert verdict([3.0, 2, 2, 2.001], [3.0, 2, 2, 2.002], [3.0, 2, 2, 2.003]).beyond == "holds"


def test_seeds_on_both_sides_stay_unclear_and_so_do_changes_too_small_to_matter() -> None:
    found = verdict([3.0, 2, 2, 2.1], [3.0, 2, 2, 2.2], [3.0, 2, 2, 1.9])
    assert found.beyond == "unclear"
    assert "may help or hurt: the interval has both" in found.why
    assert judge_change(Interval(1.0, -2.0, 4.0), 0.004, [0.001, 1.0, 2.0]) == "unclear"
    assert judge_change(Interval(-1.0, -4.0, 2.0), 0.004, [-0.01, -1.0, -2.0]) == "helps"
    assert judge_change(Interval(1.0, -2.0, 4.0), 0.004, [1.0, 1.0]) == "unclear"


def test_one_seed_rests_on_windows_and_says_so() -> None:
    found = verdict([3.0, 2.0, 2.0, 2.3], spread=0.05)
    assert (found.best, found.first, found.last) == (Interval(2.0), Interval(2.0), Interval(3.0))
    assert found.beyond == "hurts"
    assert found.change == Interval(pytest.approx(0.3 / math.log(2) / BYTES))  # no interval over one seed
    assert "over windows of this text" in found.why
    assert "One seed, too few for an interval over seeds" in found.why
    assert verdict([3.0, 2.0, 2.0, 2.03], spread=0.5).beyond == "unclear"


def test_a_seed_that_is_not_finite_hurts_and_says_so() -> None:
    found = verdict([3.0, 2.0, 2.0, 2.0], [3.0, 2.0, 2.0, math.nan])
    assert found.beyond == "hurts"
    assert "not finite" in found.why


def test_nothing_past_the_trained_depth() -> None:
    found = verdict([3.0, 2.0])
    assert found.beyond == "unclear"
    assert "Nothing past the trained depth 2" in found.why


def test_windows_count_by_their_labels() -> None:
    """Loop 2 to 3: window 1 gains, window 2 loses three times as many labels."""
    losses = [[2.0, 2.0, math.nan], [2.0, 2.0, math.nan], [1.9, 2.1, math.nan]]
    (condition,) = group_evaluations([made("x", 0, losses, labels=(1, 3, 0))])
    change = depth_verdict(condition).change
    assert change.mean == pytest.approx(0.05 / math.log(2) / BYTES)


def test_a_finite_loss_past_an_infinite_one_helps() -> None:
    assert judge_change(Interval(-math.inf), tolerance=0.004) == "helps"
    assert judge_change(Interval(math.inf), tolerance=0.004) == "hurts"
    assert judge_change(Interval(math.nan), tolerance=0.004) == "hurts"


def test_a_best_loop_is_a_whole_number_or_the_seeds_disagree() -> None:
    apart = verdict([1.9, 2.0, 2.2, 2.4], [2.6, 2.4, 2.2, 2.0])
    assert apart.best_loop == "the seeds disagree (1, 4)"
    assert apart.why.startswith("Best loop: the seeds disagree (1, 4). By their mean loss, loops ")
    alike = verdict([3.0, 2.0, 2.2, 2.4], [3.1, 2.1, 2.3, 2.3])
    assert (alike.best_loop, alike.best) == ("2", Interval(2.0))
    assert alike.why.startswith("Loop 2 is best; no other")
    for found in (apart, alike):
        assert all(entry.mean % 1 == 0 for entry in (found.best, found.first, found.last))
        assert not re.search(r"[Ll]oops? \d+\.\d", found.why)


def test_a_record_of_before_has_its_mean_of_best_loops_put_in_words() -> None:
    kept = json_object(to_json(verdict([3.0, 2.0, 2.2, 2.4])))
    kept.pop("best_by_seed")
    assert decode(DepthVerdict, kept).best_loop == "2"
    kept["best"] = {"mean": 4.5, "low": 1.0, "high": 8.0}
    assert decode(DepthVerdict, kept).best_loop == "the seeds disagree"


def test_two_seeds_have_no_interval_over_seeds() -> None:
    """Both hurt in every window: that is said of these two models, and the record has no interval."""
    found = verdict([3.0, 2.0, 2.0, 2.2], [3.0, 2.0, 2.0, 2.3])
    assert (found.change.low, found.change.high, found.beyond) == (None, None, "hurts")
    assert "2 seeds, too few for an interval over seeds" in found.why


def test_no_loop_is_the_best_of_none() -> None:
    found = verdict([math.nan] * 4)
    assert (found.best_loop, found.beyond) == ("none", "unclear")
    assert found.why.startswith("No loop has a finite loss in every seed")
