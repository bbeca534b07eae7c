"""Verdicts on depth: the stretch near the best loop, and whether more loops help, over seeds or for one."""

import math

import numpy as np
import pytest

from loopscope.evaluation.compare.condition import group_evaluations
from loopscope.evaluation.depth.verdict import depth_verdict, judge_change, stretch
from loopscope.results import DepthVerdict, Interval
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
    assert stretch(made("x", 0, np.array(losses)[:, None].repeat(5, axis=1))) == expected


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
    assert (found.seeds, found.beyond) == (3, "unclear")
    assert found.best.mean == pytest.approx(7 / 3)
    assert found.best.high is not None
    assert found.best.high <= 4
    assert "3 seeds" in found.why
    assert verdict([3.0, 2, 2, 2.2], [3.0, 2, 2, 2.21], [3.0, 2, 2, 2.19]).beyond == "hurts"
    assert verdict([3.0, 2, 2, 1.8], [3.0, 2, 2, 1.79], [3.0, 2, 2, 1.81]).beyond == "helps"
    assert verdict([3.0, 2, 2, 2.001], [3.0, 2, 2, 2.002], [3.0, 2, 2, 2.003]).beyond == "holds"


def test_one_seed_rests_on_windows_and_says_so() -> None:
    found = verdict([3.0, 2.0, 2.0, 2.3], spread=0.05)
    assert (found.best, found.first, found.last) == (Interval(2.0), Interval(2.0), Interval(3.0))
    assert found.beyond == "hurts"
    assert found.change.low is not None
    assert "One seed" in found.why
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
