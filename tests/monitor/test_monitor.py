"""The scale monitor on real training: it warns where a blind scale grows, and changes no bit of what it watches."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.guards import same_random_numbers
from loopscope.model.looped import LoopedTransformer
from loopscope.monitor.growth import RUNAWAY_GROWTH
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective, build_objective
from loopscope.objectives.placements import Dense, Terminal
from loopscope.recurrence import unroll
from tests.monitor.fixtures import LOOPS, VOCABULARY, batch, learn, make


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
    monitor = ScaleMonitor(looped, judged, every=5, budget=None, tell=said.append)
    losses = learn(looped, judged, monitor)
    assert losses[-1] < 0.5 * losses[0]
    assert {check.verdict for check in monitor.history} == {verdict}
    assert [check.step for check in monitor.history] == [1, *range(5, 61, 5)]
    warned = [check for check in monitor.history if check.warning]
    assert said == [text for check in monitor.history for text in (check.warning, check.note) if text]
    if verdict != "blind":
        assert said == []
        return
    (check,) = warned
    assert check.step == 20  # the fifth check: the first window without the initialisation
    first = monitor.history[0].rms[-1]
    assert f"nothing holds the scale of the last loop (RMS {first:.4g} at step 1, " in said[0]
    assert monitor.history[2].note == said[0]  # with the third check
    assert check.warning is not None
    assert "Loops 1-4 carry" in check.warning
    assert "no loss term sees it: readout " in check.warning
    assert "Add a penalty" in check.warning
    assert f"RMS {monitor.history[1].rms[-1]:.4g} at step 5, {check.rms[-1]:.4g} now" in check.warning


def test_growth_in_sight_of_the_loss_is_left_in_peace() -> None:
    """A readout that shows scale, a state that is made to double: it grows as much as any, and nothing is said."""
    model, said = make(readout="raw"), list[str]()
    monitor = ScaleMonitor(model, every=1, budget=None, tell=said.append)
    for step in range(6):
        monitor.step(step, *batch(1))
        with torch.no_grad():
            model.token_embedding.weight.mul_(2)
            model.position_embedding.weight.mul_(2)
    assert monitor.history[-1].growth > RUNAWAY_GROWTH
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
    assert check.carry == pytest.approx([loop.carry for loop in report.loops], abs=1e-3)  # one-sided
    assert check.exposure == pytest.approx([loop.exposure for loop in report.loops], abs=1e-5)
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
