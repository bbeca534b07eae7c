"""A model on its way down, asked before its own depth: against a parabola, and against committed runs."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.fates_runs import Run, asked_at, load_runs
from loopscope.evaluation.depth.prognosis import judge_signs
from loopscope.evaluation.depth.prognosis_rule import UNIT, descends, descent
from loopscope.results import LoopSigns

K = 4


def signs(loss: Callable[[float], float], curve: float) -> list[LoopSigns]:
    """Loops 1 to K + 2 of equal steps along a way of this loss; a step's divergence is the way's curve."""
    return [LoopSigns(loop, loss(loop - K), 1.0, 0.0, 0.1, 1.0, curve, 1.0) for loop in range(1, K + 3)]


@pytest.mark.parametrize("lowest", [2.8, 3.5, 4.0])
def test_of_a_parabola_the_lowest_point_is_told(lowest: float) -> None:
    curve = 0.02
    way = signs(lambda step: 3.0 + curve * (step - lowest) ** 2, curve)
    assert descends(way, K)
    assert descent(way, K) == pytest.approx(-curve * lowest**2, rel=1e-6)
    told = judge_signs(way, K, True, 10_000)
    assert told.fate == "improves"
    assert "It is on its way down" in told.why
    assert all(row.low < descent(way, K) < row.high for row in told.at)


@pytest.mark.parametrize("lowest", [0.0, 1.0, 2.0])
def test_one_that_has_arrived_or_gone_past_is_not_on_its_way(lowest: float) -> None:
    assert not descends(signs(lambda step: 3.0 + 0.02 * (step - lowest) ** 2, 0.02), K)


def test_an_expanding_map_may_gain_at_first() -> None:
    growing = [
        replace(row, divergence=1e-4 * 2**row.loop) for row in signs(lambda step: 3.0 - 0.1 * step, 1e-4)
    ]
    assert not descends(growing, K)


def test_neither_is_one_that_hardly_gains() -> None:
    assert not descends(signs(lambda step: 3.0 - UNIT / 4 * step, 1e-5), K)
    assert descends(signs(lambda step: 3.0 - UNIT * step, 1e-5), K)


def test_no_more_is_left_than_was_gained() -> None:
    assert descent(signs(lambda step: 3.0 - 0.1 * step, 1e-9), K) == pytest.approx(-0.4)


def cases() -> list[Run]:
    """Committed runs asked at 1, 2 and 3 loops and at their own depth, which are on their way down there."""
    own = [run for size in ("narrow", "laptop", "depths") for run in load_runs(size)]
    own = [run for run in own if not run.condition.endswith(" at 2")]  # those are asked at 2 below
    asked = [asked_at(run, loops) for run in own for loops in (1, 2, 3) if loops < run.trained_loops]
    asked = [run for run in asked if len(run.losses) == 4 * run.trained_loops]
    return [
        run
        for run in (*own, *asked)
        if len(run.signs) >= run.trained_loops + 2 and descends(run.signs, run.trained_loops)
    ]


def test_committed_runs_on_their_way_down_improve() -> None:
    """30 of 32: all 27 that are asked at their first loop, 3 of 5 of the others; none at its own depth."""
    found = cases()
    assert all(run.trained_loops < K for run in found)
    assert len(found) == 32
    assert sum(run.fate == "improves" for run in found) == 30
    assert all(run.fate == "improves" for run in found if run.trained_loops == 1)
