"""Where a run's scale is going, against histories whose end is known."""

import math

import pytest

from loopscope.monitor.scale_trend import GOES_ON, RESTING_SPREAD, SPREAD_OF_CHANGE, over_loops, scale_trend
from loopscope.results import ScaleTrend


def _history(size, steps: int = 800) -> list[tuple[int, tuple[float, ...]]]:  # type: ignore[no-untyped-def]
    return [(step, (size(step), size(step))) for step in range(10, steps + 1, 10)]


def test_a_scale_that_stands_still_is_at_rest() -> None:
    found = scale_trend(_history(lambda step: 7.0))
    assert found is not None
    assert (found.steps, found.half, found.now, found.twice) == pytest.approx((800, 7.0, 7.0, 7.0))
    assert found.at_rest
    assert found.high / found.now == pytest.approx(math.exp(RESTING_SPREAD))
    assert found.low / found.now == pytest.approx(math.exp(-RESTING_SPREAD))
    assert found.lines()[0].startswith(
        "It is about at rest: in the log of training the L2 norm of H over all loops was 7 at step 400"
    )


@pytest.mark.parametrize(("power", "word"), [(0.5, "It still grows"), (-0.5, "It still falls")])
def test_a_power_of_the_steps_goes_on_by_its_share(power: float, word: str) -> None:
    found = scale_trend(_history(lambda step: step**power))
    assert found is not None
    moved = power * math.log(2)
    assert math.log(found.now / found.half) == pytest.approx(moved, abs=1e-2)
    assert math.log(found.twice / found.now) == pytest.approx(GOES_ON * moved, abs=1e-2)
    assert math.log(found.high / found.twice) == pytest.approx(
        RESTING_SPREAD + SPREAD_OF_CHANGE * abs(moved), abs=1e-2
    )
    assert found.lines()[0].startswith(word)


def test_of_a_scale_that_has_turned_nothing_is_told() -> None:
    """It fell to step 560 and has risen since: what the last doubling brought is no way that it goes on."""

    def turning(step: int) -> float:
        return 10.0 * math.exp(-step / 400) if step < 560 else 10.0 * math.exp(-1.4 + (step - 560) / 800)

    assert scale_trend(_history(turning)) is None
    assert scale_trend(_history(turning, steps=560)) is not None


def test_one_batch_decides_nothing() -> None:
    history = _history(lambda step: 7.0)
    history[-1] = (800, (9.0, 9.0))
    found = scale_trend(history)
    assert found is not None
    assert found.now == pytest.approx(7.0, rel=0.04)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [(10, (1.0,)), (50, (1.0,))],
        [(step, ()) for step in range(10, 900, 10)],
        _history(lambda step: math.nan),
        _history(lambda step: 0.0),
        [(400, (1.0,)), (800, (math.inf,))],
        [(800, (1.0,))],
    ],
    ids=["nothing", "hardly begun", "no scales", "nan", "zero", "infinite at the end", "one point"],
)
def test_nothing_is_foretold_of_too_little(history: list[tuple[int, tuple[float, ...]]]) -> None:
    assert scale_trend(history) is None


def test_the_norm_over_loops_is_the_root_of_their_mean_square() -> None:
    assert over_loops([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))


def test_a_record_reads_as_a_row() -> None:
    found = ScaleTrend(600, 2.0, 3.0, 3.6, 3.0, 4.2)
    assert found.change == pytest.approx(0.2)
    assert found.table() == [{"at half": 2.0, "now": 3.0, "at twice": 3.6, "low": 3.0, "high": 4.2}]
