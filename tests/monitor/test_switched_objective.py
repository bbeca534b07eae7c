"""A monitor whose training changes its loss: it judges again at once, and says what has changed."""

from typing import Any

import pytest

from loopscope.monitor.monitor import ScaleMonitor
from tests.monitor.fixtures import Clock, Sized, batch

PENALISED = "dense+norm_penalty=0.01"


def watched(first: str, at: int, then: str, sizes: list[float], every: int = 20) -> Any:
    """A monitor that is told of another objective before its check number `at`."""
    model, said = Sized(), list[str]()
    monitor = ScaleMonitor(model, first, every=every, budget=None, tell=said.append, clock=Clock(), steps=400)
    for check, size in enumerate(sizes):
        step = max(20 * check, 1)
        if check == at:
            step += 3  # no multiple of `every`: a switch is due when it comes
            monitor.switch(then, step)
        model.size = size
        monitor.step(step, *batch(1))
    return monitor, said


def test_nothing_holds_the_scale_from_the_switch_on_and_then_it_grows() -> None:
    monitor, said = watched(PENALISED, 4, "dense", [2, 2, 2, 2, 2, *(2.0 * 1.3**check for check in range(9))])
    assert said[0].startswith(
        "step 83: the loss is dense from here on, dense + norm_penalty until now; nothing holds the scale from here on "
        "(blind, visible until now). Loops 1-2"
    )
    assert "no loss term sees it" in said[0]
    checks = {check.step: check for check in monitor.history}
    assert (checks[83].event, checks[83].verdict, checks[83].note) == ("switched", "blind", said[0])
    assert [check.event for check in monitor.history if check.event] == [
        "switched",
        "grows",
    ]  # not said twice
    assert "has grown and the loss does not see it" in said[1]


def test_what_grew_unseen_is_no_alarm_once_the_loss_sees_it() -> None:
    sizes = [2, 2, 2, 2, 2, *(2.0 * 1.3**check for check in range(9))]
    monitor, said = watched("dense", 4, PENALISED, sizes)
    assert said[0].startswith("step 40: nothing holds")
    assert "the scale is visible from here on, blind until now" in said[1]
    assert [check.event for check in monitor.history if check.event] == ["unheld", "switched"]
    assert monitor.warned == []
    monitor, said = watched("terminal", 4, "dense", [2.0] * 5)
    assert "the verdict stays blind" in said[1]


def test_a_resumed_monitor_does_not_take_the_other_phase_for_its_own() -> None:
    before, _ = watched("dense", 9, "dense", [2.0, 2.0, 2.0, 2.0])
    again = ScaleMonitor(Sized(), PENALISED, budget=None, tell=lambda text: None, clock=Clock())
    again.resume(before.history, since=70)
    assert again._known(None) is None
    again.resume(before.history, since=1)
    assert again._known(None) == "blind"


def test_it_switches_to_an_objective_only() -> None:
    monitor = ScaleMonitor(Sized(), "dense", tell=lambda text: None)
    with pytest.raises(ValueError, match="objective 'densee'"):
        monitor.switch("densee", 10)
    assert monitor.objective.name == "dense"
