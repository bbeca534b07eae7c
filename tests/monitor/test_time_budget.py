"""The scale monitor's budget, on a clock of the test's own: checks stretch, and a short training has some."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from loopscope.model.looped import LoopedTransformer
from loopscope.monitor.monitor import SCALE_PART, ScaleMonitor
from tests.monitor.fixtures import Clock, Sized, batch, make


def slow(clock: Clock, per_core: float, warm_up: float = 0.0) -> LoopedTransformer:
    """A model that takes `per_core` seconds of the clock for every application of its stack, the first one more."""

    class Slow(LoopedTransformer):
        warm = False

        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            clock.now += per_core + (0.0 if self.warm else warm_up)
            self.warm = True
            return super().core(hidden, loop, context)

    return Slow(make().config)


@pytest.mark.parametrize(("per_core", "steps"), [(1e-4, 100), (0.003, 300), (0.02, 1000), (0.3, 4000)])
def test_the_budget_holds_by_stretching(per_core: float, steps: int) -> None:
    """Steps of one second. A scale takes 5 cores (one for the ids, 4 loops), a verdict 13 (5 carries, 3 slopes)."""
    clock = Clock()
    monitor = ScaleMonitor(slow(clock, per_core), every=10, budget=0.02, tell=lambda text: None, clock=clock)
    checked, judged, tokens = list[int](), list[int](), batch(1)
    shares, checking = list[float](), 0.0
    early = (5 + 5 + 13) * per_core
    for step in range(1, steps + 1):
        clock.now += 1.0
        before = clock.now
        check = monitor.step(step, *tokens)
        checking += clock.now - before
        if check is not None:
            checked.append(step)
            if check.verdict:
                judged.append(step)
        if (
            step > early / (0.02 * (1 - SCALE_PART)) + 1
        ):  # three checks and a verdict come before they are paid for
            shares.append(checking / step)
    assert shares
    assert max(shares) <= 0.02
    assert monitor.budget.training == pytest.approx(steps - 1)
    assert monitor.budget.spent == pytest.approx(checking)
    assert all(step % 10 == 0 for step in checked[1:])
    affordable = steps * 0.02 / (13 * per_core)
    assert 0.5 * min(affordable, steps / 10) <= len(judged) <= affordable
    apart = max(10.0, 5 * per_core / (0.02 * SCALE_PART))
    longest = max(later - sooner for sooner, later in pairwise(checked))
    assert longest <= apart + 10  # scales go on while debts are paid back
    if per_core == 1e-4:  # cheap: everything at every turn, from the first verdict on
        assert checked == [1, *range(10, steps + 1, 10)]
        assert judged == checked[2:]


def test_a_short_training_has_three_checks_and_a_verdict() -> None:
    """The laptop run of the review: steps of 16 ms, a check takes half of one and a verdict three, and it ends soon."""
    clock = Clock()
    monitor = ScaleMonitor(slow(clock, 0.001), tell=lambda text: None, clock=clock)
    for step in range(1, 601):
        clock.now += 0.016
        monitor.step(step, *batch(1))
    verdicts = {check.step: check.verdict for check in monitor.history}
    assert list(verdicts)[:3] == [1, 20, 40]
    assert (verdicts[1], verdicts[20], verdicts[40]) == (None, None, "blind")
    assert list(verdicts.values()).count("blind") > 3
    assert monitor.budget.spent <= 0.02 * 600 * 0.016


def test_a_slow_first_call_sets_no_expectation() -> None:
    """Steps of one second, a first call of ten: alone it takes 500 s of training to pay, and checks go on."""
    clock = Clock()
    monitor = ScaleMonitor(slow(clock, 0.001, warm_up=10.0), every=10, tell=lambda text: None, clock=clock)
    for step in range(1, 1001):
        clock.now += 1.0
        monitor.step(step, *batch(1))
    assert [check.step for check in monitor.history] == [1, *range(10, 1001, 10)]
    assert monitor.history[0].seconds > 10
    judged = [check.step for check in monitor.history if check.verdict]
    assert judged[0] == 20
    assert judged[1] > 500  # the debt is paid back by verdicts that wait
    assert monitor.budget.spent <= 0.02 * 1000


def test_a_resumed_training_is_judged_early_again() -> None:
    """What a verdict costs is not kept: the third check of the process finds out."""
    clock = Clock()
    first = ScaleMonitor(slow(clock, 0.001), tell=lambda text: None, clock=clock)
    again = ScaleMonitor(slow(clock, 0.001), tell=lambda text: None, clock=clock)
    for monitor, steps in ((first, range(1, 61)), (again, range(61, 121))):
        monitor.resume(first.history)
        for step in steps:
            clock.now += 0.016
            monitor.step(step, *batch(1))
    assert [check.step for check in first.history if check.verdict] == [40]
    assert [check.step for check in again.history if check.verdict] == [40, 100]  # 61, 80, 100


def test_what_is_no_training_pays_for_nothing() -> None:
    clock = Clock()
    monitor = ScaleMonitor(slow(clock, 0.001), every=1, clock=clock)
    for step in range(1, 4):
        clock.now += 1.0
        monitor.step(step, *batch(step))
        clock.now += 1000.0
        monitor.budget.restart()
    assert monitor.budget.training == pytest.approx(2.0)


def test_a_warning_does_not_wait_for_the_budget() -> None:
    """The early verdict is spent while the scale is flat, and so dear that no later one is paid for."""
    clock, said = Clock(), list[str]()

    class Costly(Sized):
        def readout(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            clock.now += 100.0 if torch.is_grad_enabled() else 0.0
            return super().readout(hidden, loop, context)

    model = Costly()
    monitor = ScaleMonitor(model, tell=said.append, clock=clock)
    for step in range(1, 801):
        clock.now += 1.0
        model.size = 5.0 if step <= 400 else 5.0 + (step - 400) / 20
        monitor.step(step, *batch(1))
    assert [check.step for check in monitor.history] == [1, *range(20, 801, 20)]
    (warned,) = monitor.warned
    assert [text for text in said if "has grown" in text] == [warned.warning]
    assert 420 < warned.step < 600
    assert [check.step for check in monitor.history if check.verdict] == [40, warned.step]
