"""When the scale monitor warns: what counts as growth, as settled, as news."""

import pytest

from loopscope.monitor.growth import RUNAWAY_GROWTH, growth, rising
from loopscope.monitor.monitor import KEPT, ScaleMonitor, ScaleWarning
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from tests.monitor.fixtures import Clock, batch, learn, make, watch

WARM_UP = [7.06, 11.1, 11.5, 11.5, 11.7, 11.4, 11.2]
"""Measured from the first step on: a jump from the initialisation, then flat."""


def test_a_resumed_monitor_goes_on_from_its_history() -> None:
    model, said = make(), list[str]()
    first = ScaleMonitor(model, every=10, budget=None, tell=said.append)
    learn(model, Objective(Dense()), first, steps=30)
    assert len(said) == 1
    again = ScaleMonitor(model, every=10, budget=None, tell=said.append)
    again.resume(first.history)
    assert again.step(31, *batch(31)) is None  # 30 was checked before
    check = again.step(40, *batch(40))
    assert check is not None
    assert check.growth > RUNAWAY_GROWTH
    assert len(said) == 1
    unwarned = ScaleMonitor(model, every=10, budget=None, tell=said.append)
    unwarned.resume(first.history[:2])  # interrupted before the warning: it comes, from the whole history
    unwarned.step(40, *batch(40))
    assert len(said) == 2
    assert "at step 1," in said[1]


def test_the_jump_from_the_initialisation_is_no_trend() -> None:
    monitor, said = watch(WARM_UP)
    assert said == []
    assert monitor.history[2].growth > RUNAWAY_GROWTH  # by the fit alone it would have warned
    monitor, said = watch([*WARM_UP, *(11.2 + 2.0 * check for check in range(1, 12))])
    assert len(said) == 1  # and the runaway that follows is warned of
    assert monitor.warned[0].rms[-1] < 25


def test_a_second_runaway_is_warned_of_again_and_no_third() -> None:
    runaway, flat = [2.0, 4.0, 8.0, 10.0, 12.0], [12.0] * 12
    monitor, said = watch([*runaway, *flat])
    assert [check.step for check in monitor.warned] == [40]
    monitor, said = watch([*runaway, *flat, *(12.0 + check for check in range(1, 10))])
    assert len(said) == 2
    assert "has grown again and the loss does not see it (RMS 8 at step 40, 16 now)" in said[1]
    again = ScaleMonitor(monitor.model, budget=None, tell=said.append)
    again.resume(monitor.history)
    assert again.warned == monitor.warned
    first = ScaleMonitor(monitor.model, budget=None, tell=said.append)
    first.resume(monitor.history[:-8])  # settled before it was interrupted: that is known again
    monitor.model.size = 30.0  # type: ignore[assignment]
    first.step(1000, *batch(1))
    assert len(said) == 3
    _, said = watch([*runaway, *flat, *[12.0 + 4 * check for check in range(10)], *[48.0] * 40, *[200.0] * 3])
    assert len(said) == 2


def test_one_runaway_is_one_warning_however_far_it_goes() -> None:
    for sizes in ([1.5**check for check in range(40)], [2.0 + 5 * check for check in range(200)]):
        monitor, said = watch(sizes)
        assert [check.step for check in monitor.warned] == [40]
        assert len(said) == 1


def test_rising_looks_at_the_later_half() -> None:
    assert not rising([(1, 1.0), (20, 9.0)])
    assert rising([(1, 1.0), (20, 9.0), (40, 10.0)])
    assert not rising([(1, 1.0), (20, 9.5), (40, 10.0)])
    assert not rising([(step, 10.0 * (1 + 0.02 * (-1) ** step)) for step in range(9)])
    assert rising([(step, 10.0 + step) for step in range(9)])
    assert not rising([(step, 10.0 - step) for step in range(9)])
    assert rising([(1, 1.0), (20, 9.0), (40, 10.0), (60, float("inf"))])
    assert not rising([(step, 0.0) for step in range(9)])


def test_growth_is_fitted_and_robust() -> None:
    line = [(step, 2.0 + 0.1 * step) for step in range(0, 50, 10)]
    assert growth(line) == pytest.approx(2.0)  # from 2 to 6
    assert growth(line[:2]) == 0.0
    noisy = [(step, 5.0 * (1 + 0.05 * (-1) ** step)) for step in range(9)]
    assert abs(growth(noisy)) < 0.1
    settled = [*[(step, 10.0 - step) for step in range(9)], *[(step, 0.5 * step) for step in range(9, 17)]]
    assert growth(settled) > RUNAWAY_GROWTH  # falls first, runs away later
    assert growth([(1, float("nan")), *line]) == pytest.approx(2.0)
    assert growth([(step, float("inf")) for step in range(5)]) == 0.0


def test_history_is_bounded_and_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopscope.monitor.monitor.KEPT", 8)
    monitor = ScaleMonitor(make(), every=1, tell=lambda text: None, clock=Clock())
    for step in range(1, 31):
        monitor.step(step, *batch(1))
    assert len(monitor.history) <= 8 < KEPT
    assert (monitor.history[0].step, monitor.history[-1].step) == (1, 30)


def test_it_warns_through_warnings() -> None:
    model = make()
    with pytest.warns(ScaleWarning, match="has grown and the loss does not see it") as caught:
        learn(model, Objective(Dense()), ScaleMonitor(model, every=10, budget=None))
    assert len(caught) == 1
