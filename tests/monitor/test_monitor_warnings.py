"""What the scale monitor says, and when: nothing holds a scale, it grows, it has settled or turned, it grows again."""

import pytest

from loopscope.monitor.growth import RUNAWAY_GROWTH, WINDOW, rising, trend
from loopscope.monitor.monitor import KEPT, ScaleMonitor, ScaleWarning
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from tests.monitor.fixtures import Clock, batch, learn, make, watch

WARM_UP = [7.06, 11.1, 11.5, 11.5, 11.7, 11.4, 11.2]
"""Measured from the first step on: a jump from the initialisation, then flat."""


def events(monitor: ScaleMonitor) -> dict[int, str]:
    return {check.step: check.event for check in monitor.history if check.event}


def test_that_nothing_holds_a_scale_is_said_once_and_is_no_alarm() -> None:
    monitor, said = watch(WARM_UP)
    assert monitor.warned == []
    assert events(monitor) == {40: "unheld", 100: "settled"}
    assert said[0].startswith(
        "step 40: nothing holds the scale of the last loop (RMS 7.06 at step 1, 11.5 now). Loops 1-2"
    )
    assert "That is no alarm" in said[0]
    assert said[1].startswith(
        "step 100: the scale of the last loop has settled: RMS 11.5 at step 40, 11.4 now."
    )
    assert [check.note for check in monitor.history if check.note] == said


def test_an_alarm_has_a_rate_and_what_it_comes_to() -> None:
    sizes = [2.0 + 5 * check for check in range(8)]  # 5 every 20 steps
    monitor, said = watch(sizes, steps=1000)
    (alarm,) = monitor.warned
    assert (alarm.step, alarm.event) == (80, "grows")  # the first window that leaves out the initialisation
    assert alarm.rate == pytest.approx(5 / 20, rel=1e-3)
    assert alarm.growth == pytest.approx(15 / 7, rel=1e-3)
    assert (
        "RMS 7 at step 20, 22 now, 25 more every 100 steps; at that rate it is 252 at step 1000, the last."
        in said[1]
    )
    assert "no loss term sees it" in said[1]
    _, unknown = watch(sizes)
    assert "at that rate it has doubled by step 168." in unknown[1]


def test_one_runaway_is_one_alarm_however_far_it_goes() -> None:
    for sizes in ([1.5**check for check in range(40)], [2.0 + 5 * check for check in range(200)]):
        monitor, said = watch(sizes)
        assert events(monitor) == {40: "unheld", 80: "grows"}
        assert len(said) == 2


def test_slow_growth_is_no_alarm() -> None:
    monitor, _ = watch(
        [3.0, *(10.0 * check**0.24 for check in range(1, 60))]
    )  # as measured from the scaled start
    assert monitor.warned == []


def test_an_alarm_is_taken_back_when_the_scale_turns() -> None:
    """As it was measured over 3,000 steps of a first run: up to a peak within hundreds of steps, and down again."""
    sizes = [2.0, *(100.0 * check for check in range(1, 12)), *(1110.0 * 0.93**check for check in range(26))]
    monitor, said = watch(sizes)
    found = events(monitor)
    assert list(found.values()) == ["unheld", "grows", "turned"]
    assert found[80] == "grows"
    turned = max(found)
    assert "has turned: RMS 1110 at step 240" in said[-1]
    assert " less every 100 steps. Still nothing in the loss holds it." in said[-1]
    assert turned < 20 * len(sizes)


def test_a_second_runaway_is_warned_of_again_and_no_third() -> None:
    runaway, flat = [2.0, 4.0, 8.0, 10.0, 12.0], [12.0] * 12
    monitor, said = watch([*runaway, *flat])
    assert list(events(monitor).values()) == ["unheld", "grows", "settled"]
    monitor, said = watch([*runaway, *flat, *(12.0 + 3 * check for check in range(1, 10))])
    assert [check.step for check in monitor.warned] == [80, 400]
    assert "has grown again and the loss does not see it: RMS 12 at step" in said[-1]
    again = ScaleMonitor(monitor.model, budget=None, tell=said.append)
    again.resume(monitor.history)
    assert again.warned == monitor.warned
    before = len(said)
    first = ScaleMonitor(monitor.model, budget=None, tell=said.append)
    first.resume(monitor.history[:-6])  # settled before it was interrupted: that is known again
    for step in (430, 450, 470, 490, 510):
        monitor.model.size = 30.0 + step / 10  # type: ignore[assignment]
        first.step(step, *batch(1))
    assert ["has grown again" in text for text in said[before:]] == [True]
    third, _ = watch([*runaway, *flat, *[12.0 + 4 * c for c in range(10)], *[48.0] * 40, *[200.0] * 60])
    assert len(third.warned) == 2


def test_a_resumed_monitor_goes_on_from_its_history() -> None:
    model, said = make(), list[str]()
    first = ScaleMonitor(model, every=5, budget=None, tell=said.append)
    learn(model, Objective(Dense()), first, steps=30)
    alarms = [text for text in said if "has grown" in text]
    assert len(alarms) == 1
    again = ScaleMonitor(model, every=5, budget=None, tell=said.append)
    again.resume(first.history)
    assert again.step(31, *batch(31)) is None  # 30 was checked before
    check = again.step(40, *batch(40))
    assert check is not None
    assert len([text for text in said if "has grown" in text]) == 1
    unwarned = ScaleMonitor(model, every=5, budget=None, tell=said.append)
    unwarned.resume(first.history[:4])  # interrupted before the alarm: it comes, from the whole history
    unwarned.step(40, *batch(40))
    assert len([text for text in said if "has grown" in text]) == 2


def test_rising_looks_at_the_later_half() -> None:
    assert not rising([(1, 1.0), (20, 9.0)])
    assert rising([(1, 1.0), (20, 9.0), (40, 10.0)])
    assert not rising([(1, 1.0), (20, 9.5), (40, 10.0)])
    assert not rising([(step, 10.0 * (1 + 0.02 * (-1) ** step)) for step in range(9)])
    assert rising([(step, 10.0 + step) for step in range(9)])
    assert not rising([(step, 10.0 - step) for step in range(9)])
    assert rising([(1, 1.0), (20, 9.0), (40, 10.0), (60, float("inf"))])
    assert not rising([(step, 0.0) for step in range(9)])


def test_a_trend_is_fitted_to_the_later_half_and_robust() -> None:
    line = [(0, 50.0), *((step, 2.0 + 0.1 * step) for step in range(10, 50, 10))]
    found = trend(line)
    assert found is not None
    assert (found.start, found.end, found.rate) == (10, 40, pytest.approx(0.1))  # the first check is left out
    assert found.growth == pytest.approx(1.0)  # from 3 to 6
    assert found.at(140) == pytest.approx(16.0)
    assert found.grows
    assert trend(line[:WINDOW]) is None
    noisy = trend([(step, 5.0 * (1 + 0.05 * (-1) ** step)) for step in range(20)])
    assert noisy is not None
    assert noisy.settled
    assert not noisy.grows
    later = trend(
        [*[(step, 10.0 - step) for step in range(9)], *[(step, 0.5 * step) for step in range(9, 20)]]
    )
    assert later is not None
    assert later.growth > RUNAWAY_GROWTH  # falls first, runs away later
    assert trend([(0, float("nan")), *line]) == found
    assert trend([(step, float("inf")) for step in range(9)]) is None


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
        learn(model, Objective(Dense()), ScaleMonitor(model, every=5, budget=None), steps=40)
    assert "nothing holds the scale" in str(caught[0].message)
