"""A run's step timed on small models of its shape: every kind of model can be, and what it leaves as it was."""

from typing import Any

import pytest
import torch

from loopscope.config.recipes import recipe
from loopscope.jobs import step_timing
from loopscope.jobs.step_timing import timed_step

TINY: dict[str, Any] = {
    "model": {"dim": 16, "heads": 2, "vocabulary": 256, "sequence": 8},
    "data": {"tokenizer": {"kind": "bytes"}},
    "training": {"batch": 2, "precision": "fp32"},
}
SCHEDULE = {"objective": {"schedule": [{"placement": "dense", "until": 0.5}, {"placement": "terminal"}]}}


class Clock:
    """Every look at it is a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize(
    "condition",
    ["dense/rmsnorm", "terminal/raw", "parcae", "loopformer", "hybrid", "huginn", "unlooped-deep"],
)
def test_a_step_of_every_kind_is_timed(condition: str) -> None:
    found = timed_step(recipe("laptop", condition, TINY))
    assert found is not None
    assert sum(found.parts(2 * 8, 2, 4, 1000)) > 0


def test_equal_times_are_no_cost_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock says one second for every step, and one for every update."""
    monkeypatch.setattr(step_timing, "MOST_TIMINGS", 1)
    found = timed_step(recipe("laptop", "dense/rmsnorm", TINY), Clock())
    assert found is not None
    assert (found.alone, found.layer, found.loop, found.use) == (0.0, 0.0, 0.0, 0.0)
    assert found.update > 0


def test_random_numbers_are_left_and_every_phase_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timing, "MOST_TIMINGS", 1)
    placements: list[str] = []
    phase = step_timing._phase
    monkeypatch.setattr(
        step_timing,
        "_phase",
        lambda model, objective, *rest: (
            placements.append(objective.placement) or phase(model, objective, *rest)
        ),
    )
    before = torch.get_rng_state()
    model = {**TINY["model"], "readout": {"kind": "rmsnorm"}}
    timed_step(recipe("laptop", "in-phases", {**TINY, **SCHEDULE, "model": model}))
    assert torch.equal(torch.get_rng_state(), before)
    assert placements == ["dense", "terminal"]


def test_where_there_is_no_room_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timing, "free_bytes", lambda: 1000)
    assert timed_step(recipe("laptop", "dense/rmsnorm", TINY)) is None
