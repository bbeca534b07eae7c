"""A run whose objective changes: the same bits however often it is killed, and a word at every switch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.objectives.config import ObjectiveConfig
from loopscope.results import RunPhase
from loopscope.results.layout import newest_checkpoint
from loopscope.results.run_phases import phases_taken
from loopscope.training.config import TrainingConfig
from loopscope.training.extension import extension_note
from loopscope.training.metrics import read_metrics
from tests.training.test_loop import losses, weights

Trainer = Any

PENALISED, GATED, LAST = (
    {"placement": "dense", "norm_penalty": {"weight": 0.01}},
    {"placement": "exit-weighted"},
    {"placement": "terminal"},
)
SCHEDULE = {"schedule": [{"until": 0.5, **PENALISED}, {"until": 0.75, **GATED}, LAST]}
SETTINGS: dict[str, Any] = {
    "objective": SCHEDULE,
    "model": {"exit_gate": True},
    "checkpoint_every": 1,
    "log_every": 1,
    "monitor_every": 4,
}


def test_killed_in_each_phase_and_at_each_switch_it_is_the_same_run(
    trainer: Trainer, killed: Any, tmp_path: Path
) -> None:
    _, whole = trainer("whole", **SETTINGS)
    for at in (4, 7, 8, 10, 12):  # 7 and 10 are the first steps of a phase
        killed("cut", at, **SETTINGS)
        assert newest_checkpoint(tmp_path / "cut").name == f"step-{at - 1:08}"
    _, resumed = trainer("cut", **SETTINGS)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    records = [read_metrics(tmp_path / folder) for folder in ("cut", "whole")]
    names = ("dense + norm_penalty", "exit-weighted", "terminal")
    for each in records:
        assert phases_taken(each, 12) == (
            RunPhase(1, 1, 6, names[0]),
            RunPhase(2, 7, 9, names[1]),
            RunPhase(3, 10, 12, names[2]),
        )
        assert {r["step"]: r["event"] for r in each if r["kind"] == "monitor" and r["event"]} == {
            7: "switched",
            10: "switched",
        }
    assert [[*r["terms"]] for r in records[1] if r["kind"] == "train"][5::3] == [
        ["cross_entropy", "norm_penalty"],
        ["cross_entropy", "entropy"],
        ["cross_entropy"],
    ]


def test_phases_are_runs_of_one_objective_one_after_another(
    trainer: Trainer, killed: Any, tmp_path: Path
) -> None:
    """The oracle: the first phase's objective alone, killed where it ends, and gone on with the next one's."""
    trainer("whole", **SETTINGS)
    killed("parts", 7, **{**SETTINGS, "objective": PENALISED})
    killed("parts", 10, **{**SETTINGS, "objective": GATED})
    trainer("parts", **{**SETTINGS, "objective": LAST})
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_weights_move_within_their_phase(trainer: Trainer, tmp_path: Path) -> None:
    moving = {"loop_weights": [1, 0, 0], "final_loop_weights": [0, 0, 1]}
    trainer("two", objective={"schedule": [{"until": 0.5, **moving}, moving]}, log_every=1)
    read = [r["cross_entropy"] for r in read_metrics(tmp_path / "two") if r["kind"] == "train"]
    first, last = [True, False, False], [False, False, True]
    seen = [[value is not None for value in values] for values in read]
    assert [seen[step] for step in (0, 5, 6, 11)] == [first, last, first, last]


def test_a_longer_run_says_where_its_phases_end_now_and_goes_back(trainer: Trainer, tmp_path: Path) -> None:
    config = ObjectiveConfig.model_validate({"schedule": [{"until": 0.75}, LAST]})
    note = extension_note(TrainingConfig(steps=24), config, 12, 24, done=12)
    assert "phase 1 of objective.schedule (dense) now ends at step 18, not 9" in note
    assert "step 13 is in phase 1 (dense) again, after phase 2 (terminal)" in note
    by_step = ObjectiveConfig.model_validate({"schedule": [{"until_step": 9}, LAST]})
    assert "as if it had been so long" in extension_note(TrainingConfig(steps=24), by_step, 12, 24, done=12)
    objective = {"schedule": [{"until": 0.75}, LAST]}
    trainer("long", objective=objective)
    trainer("long", objective=objective, steps=24)
    taken = phases_taken(read_metrics(tmp_path / "long"), 24)
    assert [(p.number, p.first, p.last) for p in taken] == [(1, 1, 9), (2, 10, 12), (1, 13, 18), (2, 19, 24)]


def test_a_run_of_epochs_that_is_too_short_for_its_phases_does_not_begin(
    trainer: Trainer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"no step for phase 2 \(terminal\) in a run of 2 steps"):
        trainer(objective={"schedule": [{"until": 0.9}, LAST]}, steps=None, epochs=0.1)
    assert not (tmp_path / "run").exists()
