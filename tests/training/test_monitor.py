"""The scale monitor on real training: it warns where a blind scale grows, and changes no bit of what it watches."""

import copy
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective, build_objective
from loopscope.objectives.placements import Dense, Terminal
from loopscope.recurrence import AbstractLoopedLM, unroll
from loopscope.training.monitor import (
    FEWEST,
    GROWN,
    KEPT,
    SCALE_PART,
    ScaleMonitor,
    ScaleWarning,
    growth,
    rising,
)
from loopscope.training.probe import check_arguments, check_batch, slice_of
from loopscope.training.undisturbed import same_random_numbers

VOCABULARY, SEQUENCE, LOOPS = 17, 12, 4


def make(**settings: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 2, "layers": 1, "loops": LOOPS, "vocabulary": VOCABULARY}
    return LoopedTransformer(
        ModelConfig(**{**values, "sequence": SEQUENCE, "initialisation": "published", **settings})
    )


def batch(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """Counting upwards modulo the vocabulary: learnable within tens of steps."""
    start = torch.randint(VOCABULARY, (size, 1), generator=torch.Generator().manual_seed(step))
    tokens = (start + torch.arange(SEQUENCE + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def learn(
    model: AbstractLoopedLM,
    objective: Objective,
    monitor: ScaleMonitor | None = None,
    steps: int = 60,
    bf16: bool = False,
    inside: bool = False,
) -> list[float]:
    """A training loop such as anybody writes; `inside` calls the monitor while gradients and autocast are there."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(1, steps + 1):
        input_ids, labels = batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = objective(unroll(model, input_ids), labels).total
            if monitor and inside:
                monitor.step(step, input_ids, labels)
        loss.backward()
        optimizer.step()
        if monitor and not inside:
            monitor.step(step, input_ids, labels)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("model", "objective", "verdict"),
    [
        ({}, {}, "blind"),
        ({"readout": "layernorm"}, {}, "blind"),
        ({}, {"placement": "terminal"}, "blind"),
        ({"readout": "raw"}, {}, "visible"),
        ({"readout": "final-only"}, {}, "visible"),
        ({}, {"norm_penalty": 0.01}, "visible"),
        ({"carry": ("rmsnorm",)}, {}, "removed"),
    ],
)
def test_it_warns_once_where_a_blind_scale_grows(
    model: dict[str, Any], objective: dict[str, Any], verdict: str
) -> None:
    said: list[str] = []
    looped, judged = make(**model), build_objective(ObjectiveConfig(**objective))
    monitor = ScaleMonitor(looped, judged, every=10, budget=None, tell=said.append)
    losses = learn(looped, judged, monitor)
    assert losses[-1] < 0.5 * losses[0]
    assert {check.verdict for check in monitor.history} == {verdict}
    assert [check.step for check in monitor.history] == [1, 10, 20, 30, 40, 50, 60]
    warned = [check for check in monitor.history if check.warning]
    assert said == [check.warning for check in warned]
    if verdict != "blind":
        assert said == []
        return
    (check,) = warned
    assert check.step == 20  # the third check: no sooner could a growth be fitted
    assert check.rms[-1] < 20  # overflow would be at 1e38, and bf16 loses a step of 0.1 beside 25
    assert "Loops 1-4 carry" in said[0]
    assert "no loss term sees it: readout " in said[0]
    assert "Add a penalty" in said[0]
    assert f"RMS {monitor.history[0].rms[-1]:.4g} at step 1, {check.rms[-1]:.4g} now" in said[0]


def test_growth_in_sight_of_the_loss_is_left_in_peace() -> None:
    """A readout that shows scale, a state that is made to double: it grows as much as any, and nothing is said."""
    model, said = make(readout="raw"), list[str]()
    monitor = ScaleMonitor(model, every=1, budget=None, tell=said.append)
    for step in range(4):
        monitor.step(step, *batch(1))
        with torch.no_grad():
            model.token_embedding.weight.mul_(2)
            model.position_embedding.weight.mul_(2)
    assert monitor.history[-1].growth > GROWN
    assert said == []


def test_a_check_measures_what_the_audit_measures() -> None:
    model, (input_ids, labels) = make(dropout=0.3), batch(1, 2)
    monitor = ScaleMonitor(model, budget=None)
    check = monitor.step(1, input_ids, labels)
    assert check is not None
    assert model.training
    report = loopscope.audit(model, input_ids, labels)
    assert check.verdict == report.verdict == "blind"
    assert check.rms == pytest.approx(report.expansion.rms[:LOOPS])
    assert check.carry == pytest.approx([loop.carry for loop in report.loops])
    assert check.exposure == pytest.approx([loop.exposure for loop in report.loops])
    assert check.figures()["loopscope/rms_loop_4"] == check.rms[-1]
    assert check.figures()["loopscope/blind"] == 1.0


class RandomStart(LoopedTransformer):
    """Draws random numbers even in evaluation mode, as models with a random first state do."""

    def embed(self, input_ids: Tensor) -> Tensor:
        return super().embed(input_ids) + 1e-3 * (torch.rand(()) + float(np.random.rand()))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_losses_and_weights_are_the_same_bits_with_and_without(bf16: bool, inside: bool) -> None:
    """Dropout, random first states, and a readout whose reference scale follows a moving average in training."""
    found = []
    for watched in (False, True):
        np.random.seed(0)
        config = make(dropout=0.1, readout={"kind": "alpha", "alpha": 0.5, "s_ref": "ema"}).config
        model, objective = RandomStart(config), Objective(Dense())
        monitor = ScaleMonitor(model, objective, every=1, budget=None) if watched else None
        losses = learn(model, objective, monitor, steps=6, bf16=bf16, inside=inside)
        assert monitor is None or len(monitor.history) == 6
        found.append((losses, {name: value.clone() for name, value in model.state_dict().items()}))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(value, found[1][1][name]) for name, value in found[0][1].items())
    assert int(found[1][1]["reading.ema_count"].sum()) == 6 * LOOPS


def test_it_leaves_no_trace() -> None:
    model, objective = make(dropout=0.1), Objective(Dense())
    model.layers[0].attention.eval()  # a part that is kept in evaluation mode, as frozen ones are
    modes = {name: module.training for name, module in model.named_modules()}
    objective(unroll(model, batch(1)[0]), batch(1)[1]).total.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    random_state = torch.get_rng_state()
    with torch.no_grad():  # whatever the caller is in
        ScaleMonitor(model, objective, budget=None).step(1, *batch(2))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters())


def test_all_generators_go_on_as_before() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with same_random_numbers(torch.device("cpu")):
        assert draw() == expected
    assert draw() == expected


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.RMSNorm(16), nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Theirs(nn.Module):
    """Somebody's looped model, trained by its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 16)
        self.block = Block()
        self.norm = nn.RMSNorm(16)
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for _ in range(3):
            x = self.block(x)
        return self.head(self.norm(x))


def test_a_stranger_that_is_wrapped() -> None:
    """Trained by its own forward and loss, watched through `loopscope.wrap`."""
    found, said = [], list[str]()
    for watched in (False, True):
        torch.manual_seed(0)
        module = Theirs()
        monitor = None
        if watched:
            view = loopscope.wrap(module, block="block", readout="norm", head="head", embed="tokens")
            monitor = ScaleMonitor(view, Objective(Terminal()), every=10, budget=None, tell=said.append)
        optimizer = torch.optim.AdamW(module.parameters(), lr=3e-2)
        losses = []
        for step in range(1, 41):
            input_ids, labels = batch(step)
            loss = nn.functional.cross_entropy(module(input_ids).flatten(0, 1), labels.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            if monitor:
                monitor.step(step, input_ids, labels)
        found.append(losses)
    assert found[0] == found[1]
    assert len(said) == 1
    assert "no loss term sees it: the readout" in said[0]


class Clock:
    """Seconds that pass where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def slow(clock: Clock, per_core: float, warm_up: float = 0.0) -> LoopedTransformer:
    """A model that takes `per_core` seconds of the clock for every application of its stack, the first one more."""

    class Slow(LoopedTransformer):
        warm = False

        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            clock.now += per_core + (0.0 if self.warm else warm_up)
            self.warm = True
            return super().core(hidden, loop, context)

    return Slow(make().config)


@pytest.mark.parametrize(("per_core", "steps"), [(1e-4, 300), (0.003, 1000), (0.02, 1000), (0.3, 4000)])
def test_the_budget_holds_by_stretching(per_core: float, steps: int) -> None:
    """Steps of one second. A scale takes 8 cores (the ids' check, then 4 loops), a verdict 24 (four more per carry)."""
    clock = Clock()
    monitor = ScaleMonitor(slow(clock, per_core), every=10, budget=0.02, tell=lambda text: None, clock=clock)
    checked, judged, tokens = list[int](), list[int](), batch(1)
    shares, checking = list[float](), 0.0
    early = (8 + 8 + 24) * per_core
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
    affordable = steps * 0.02 / (24 * per_core)
    assert 0.5 * min(affordable, steps / 10) <= len(judged) <= affordable
    apart = max(10.0, 8 * per_core / (0.02 * SCALE_PART))
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
    assert check.growth > GROWN
    assert len(said) == 1
    unwarned = ScaleMonitor(model, every=10, budget=None, tell=said.append)
    unwarned.resume(first.history[:2])  # interrupted before the warning: it comes, from the whole history
    unwarned.step(40, *batch(40))
    assert len(said) == 2
    assert "at step 1," in said[1]


class Sized(AbstractLoopedLM):
    """A model whose state has the scale that the test says, unseen by its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.loops = 2
        self.size = 1.0
        self.table = nn.Embedding(VOCABULARY, 16)

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.size * nn.functional.rms_norm(self.table(input_ids), (16,))

    def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
        return hidden

    def carry(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
        return hidden

    def readout(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
        return nn.functional.rms_norm(hidden, (16,))

    def head(self, features: Tensor) -> Tensor:
        return features @ self.table.weight.T


def watch(sizes: Sequence[float], budget: float | None = None) -> tuple[ScaleMonitor, list[str]]:
    """A monitor every 20 steps of a model with these scales, and what it said."""
    model, said = Sized(), list[str]()
    monitor = ScaleMonitor(model, budget=budget, tell=said.append, clock=Clock())
    for check, size in enumerate(sizes):
        model.size = size
        monitor.step(max(20 * check, 1), *batch(1))
    assert [check.rms[-1] for check in monitor.history] == pytest.approx(sizes, rel=1e-3)
    assert {check.verdict for check in monitor.history[FEWEST - 1 :]} <= {"blind", None}
    return monitor, said


WARM_UP = [7.06, 11.1, 11.5, 11.5, 11.7, 11.4, 11.2]
"""What the review measured from the first step on: a jump from the initialisation, then flat."""


def test_the_jump_from_the_initialisation_is_no_trend() -> None:
    monitor, said = watch(WARM_UP)
    assert said == []
    assert monitor.history[2].growth > GROWN  # by the fit alone it would have warned
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
    assert said == [warned.warning]
    assert 420 < warned.step < 600
    assert [check.step for check in monitor.history if check.verdict] == [40, warned.step]


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
    assert growth(settled) > GROWN  # falls first, runs away later
    assert growth([(1, float("nan")), *line]) == pytest.approx(2.0)
    assert growth([(step, float("inf")) for step in range(5)]) == 0.0


def test_history_is_bounded_and_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopscope.training.monitor.KEPT", 8)
    monitor = ScaleMonitor(make(), every=1, tell=lambda text: None, clock=Clock())
    for step in range(1, 31):
        monitor.step(step, *batch(1))
    assert len(monitor.history) <= 8 < KEPT
    assert (monitor.history[0].step, monitor.history[-1].step) == (1, 30)


def test_a_slice_holds_labels_that_count() -> None:
    input_ids = torch.arange(40).view(4, 10)
    labels = torch.full_like(input_ids, -100)
    labels[2, 7:], labels[3, 6:9] = 1, 2
    ids, targets = slice_of(input_ids, labels, 6)
    assert ids.tolist() == [[26, 27, 28], [36, 37, 38]]
    assert (targets != -100).sum() == 5
    ids, _ = slice_of(input_ids, input_ids, 6)
    assert ids.tolist() == [[0, 1, 2], [10, 11, 12]]
    assert slice_of(input_ids[:1], labels[:1], 100)[0].shape == (1, 10)


class Viewing(Sized):
    """As nanoGPT's forward does: it flattens tokens by `view`, which refuses a slice that is not contiguous."""

    def embed(self, input_ids: Tensor) -> Tensor:
        return super().embed(input_ids.view(-1)).view(*input_ids.shape, -1)


def test_a_slice_is_contiguous_however_the_batch_lies() -> None:
    tokens = torch.randint(VOCABULARY, (SEQUENCE + 1, 8), generator=torch.Generator().manual_seed(0)).T
    input_ids, labels = tokens[:, :-1], tokens[:, 1:]
    assert not input_ids.is_contiguous()
    for width in (4, 6, 100):
        ids, targets = slice_of(input_ids, labels, width)
        assert ids.is_contiguous()
        assert targets.is_contiguous()
        assert torch.equal(ids, input_ids[:2, : width // 2])
        assert torch.equal(targets, labels[:2, : width // 2])
    assert ScaleMonitor(Viewing(), budget=None, tokens=8).step(1, input_ids, labels) is not None


def test_labels_that_are_not_shifted_are_told_of_once() -> None:
    said: list[str] = []
    tokens, labels = batch(1)
    monitor = ScaleMonitor(make(), budget=None, every=1, tell=said.append)
    monitor.step(1, tokens, labels)
    same = torch.full_like(tokens, 3)  # the token that follows is the token
    monitor.step(2, same, same)
    assert said == []
    prompt = tokens.masked_fill(torch.arange(SEQUENCE) < 4, -100)
    for step in (3, 4):
        check = monitor.step(step, tokens, prompt)
        assert check is not None
        assert check.step == step
    (note,) = [text for text in said if "labels are the input tokens" in text]
    assert "Call monitor.step(step, input_ids[:, :-1], labels[:, 1:])" in note
    monitor = ScaleMonitor(make(), tell=said.append)
    monitor.step(1, tokens, torch.full_like(tokens, -100))
    assert said.count(note) == 1


def test_without_labels_that_count_only_scales_are_measured() -> None:
    monitor = ScaleMonitor(make(), budget=None)
    check = monitor.step(1, batch(1)[0], torch.full((8, SEQUENCE), -100))
    assert check is not None
    assert check.verdict is None
    assert len(check.rms) == LOOPS


def test_half_precision_weights_are_measured_in_fp32_and_stay() -> None:
    """Also their gradients and the hooks on them, through which DDP exchanges: they hang on the parameter itself."""
    model = make().bfloat16()
    wide = copy.deepcopy(model).float()
    kept, accumulated = list(model.parameters()), list[str]()
    accumulators = [parameter.expand_as(parameter).grad_fn.next_functions[0][0] for parameter in kept]
    for accumulator in accumulators:
        accumulator.register_hook(lambda *_: accumulated.append("seen"))
    check, same = (ScaleMonitor(m, budget=None).step(1, *batch(1)) for m in (model, wide))
    assert check is not None
    assert same is not None
    assert (check.rms, check.carry, check.exposure) == (same.rms, same.carry, same.exposure)
    assert all(after is before for after, before in zip(model.parameters(), kept, strict=True))
    assert {parameter.dtype for parameter in kept} == {torch.bfloat16}
    Objective(Dense())(unroll(model, batch(1)[0]), batch(1)[1]).total.backward()
    assert len(accumulated) == len(kept)


def test_a_state_that_is_not_finite_gets_no_verdict() -> None:
    """NaN is below no threshold, so a careless comparison would call it blind."""
    model, said = make(), list[str]()
    monitor = ScaleMonitor(model, every=1, budget=None, tell=said.append)
    with torch.no_grad():
        model.layers[0].feed_forward.down.weight.fill_(float("inf"))
    for step in range(5):
        check = monitor.step(step, *batch(1))
        assert check is not None
        assert check.verdict is None
    assert said == []


def test_a_failing_check_ends_the_monitoring_and_not_the_training() -> None:
    class Failing(LoopedTransformer):
        fails = False

        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            if self.fails:
                raise torch.OutOfMemoryError("out of memory, say")
            return super().core(hidden, loop, context)

    model, said = Failing(make().config), list[str]()
    monitor = ScaleMonitor(model, every=1, budget=None, tell=said.append)
    monitor.step(1, *batch(1))
    model.fails = True
    assert monitor.step(2, *batch(2)) is None
    assert said == ["the scale monitor stops at step 2, the training goes on: out of memory, say"]
    assert model.training
    model.fails = False
    assert monitor.step(3, *batch(3)) is None
    model.fails = True
    with pytest.raises(torch.OutOfMemoryError):  # the first check says what is wrong
        ScaleMonitor(model).step(1, *batch(1))


def test_it_warns_through_warnings() -> None:
    model = make()
    with pytest.warns(ScaleWarning, match="has grown and the loss does not see it") as caught:
        learn(model, Objective(Dense()), ScaleMonitor(model, every=10, budget=None))
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_arguments(nn.Linear(2, 2), None, 20, 128), r"a Linear; .*\.adapt.*\.wrap"),
        (lambda: check_arguments(make(), ObjectiveConfig(), 20, 128), "objective is a ObjectiveConfig"),
        (lambda: check_arguments(make(), None, 2.5, 128), "every is 2.5"),
        (lambda: ScaleMonitor(make(), every=0), "every is 0; .*from 1 up"),
        (lambda: ScaleMonitor(make(), tokens=1), "tokens is 1"),
        (lambda: ScaleMonitor(make(), budget=0.0), "budget is 0.0; .*above 0 and up to 1"),
        (lambda: ScaleMonitor(make(), budget=1.5), "budget is 1.5"),
        (lambda: step_on(batch(1)[0] + 10), "input_ids go from 10 to 26; this model has ids 0 to 16"),
        (lambda: step_on(batch(1)[0] - 1), "input_ids go from -1 to"),
        (lambda: step_on(batch(1)[0], batch(1)[1] + 1), "labels go from 1 to 17; this model has ids 0 to 16"),
        (lambda: check_batch(batch(1)[0], batch(1)[1][:, 1:]), "give one label per token"),
        (lambda: check_batch(batch(1)[0][0], batch(1)[1][0]), r"must be \[batch, seq\]"),
        (lambda: check_batch(batch(1)[0].float(), batch(1)[1]), "must be int64 or int32"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def step_on(input_ids: Tensor, labels: Tensor | None = None) -> None:
    ScaleMonitor(make()).step(1, input_ids, batch(1)[1] if labels is None else labels)
