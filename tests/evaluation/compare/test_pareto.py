"""Which conditions and depths are worth their loops, FLOPs or seconds."""

import math

import pytest

from loopscope.evaluation.compare.comparison import compare
from loopscope.evaluation.compare.pareto import front
from tests.evaluation.compare.fixtures import study


@pytest.mark.parametrize(
    ("costs", "losses", "expected"),
    [
        ([1, 2, 3], [3, 2, 1], [True, True, True]),
        ([1, 2, 3], [1, 2, 3], [True, False, False]),
        ([1, 1, 2], [2, 2, 2], [True, True, False]),
        ([1, 1, 2], [2, 1, 1.5], [False, True, False]),
        ([math.inf, 2, 3], [0, math.nan, 1], [False, False, True]),
    ],
)
def test_fronts(costs: list[float], losses: list[float], expected: list[bool]) -> None:
    assert front([float(c) for c in costs], [float(loss) for loss in losses]) == expected


def test_times_that_are_alike_put_nothing_on_a_front() -> None:
    assert front([1.0, 0.97], [1.0, 2.0]) == [True, True]
    assert front([1.0, 0.97], [1.0, 2.0], alike=1.05) == [True, False]


def test_options_rank_by_measured_time_else_by_flops() -> None:
    exact = {"of_seed": 0.0, "of_window": 0.0, "noise": 0.0}
    runs = study({"a": [2.0, 1.9, 1.8], "b": [2.1, 1.95, 1.7]}, **exact)
    counted = compare(runs).options
    assert [o.flops_per_token for o in counted] == [100, 200, 300] * 2
    assert {(o.condition, o.loops) for o in counted if o.best_for_time} == {("a", 1), ("a", 2), ("b", 3)}
    slow = compare(runs, {"a": (1.0, 2.0, 3.0), "b": (0.4, 0.8, 1.2)}).options
    assert {(o.condition, o.loops) for o in slow if o.best_for_time} == {("b", 1), ("b", 2), ("b", 3)}
    assert {(o.condition, o.loops) for o in slow if o.best_for_loops} == {("a", 1), ("a", 2), ("b", 3)}
    partly = compare(runs, {"a": (1.0, 2.0, 3.0)}).options
    assert [o.best_for_time for o in partly] == [o.best_for_time for o in counted]
