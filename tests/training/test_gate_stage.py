"""The gate's second stage in training: the improvement it is fitted to is the one that exits will have, dropout off."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from loopscope.training.metrics import read_metrics
from tests.training.fixtures import Counting

GATED = {"exit_gate": True, "dropout": 0.4}


def first(run: Path) -> dict[str, Any]:
    return next(record for record in read_metrics(run) if record["kind"] == "train")


def test_improvement_is_measured_without_dropout(trainer: Any, tmp_path: Path) -> None:
    outcome, model = trainer(
        model=GATED, objective={"placement": "gate-improvement"}, steps=1, log_every=1, learning_rate=1e-12
    )
    assert outcome.failure is None
    assert not model.training
    ids, labels = Counting().batch(0, 0, 0, 4)
    objective = build_objective(ObjectiveConfig(placement="gate-improvement"))
    with torch.no_grad():
        still = objective(unroll(model.eval(), ids), labels)
        noisy = objective(unroll(model.train(), ids), labels)
    record = first(tmp_path / "run")
    assert record["cross_entropy"] == pytest.approx(still.cross_entropy.tolist(), rel=1e-5)
    assert record["loss"] == pytest.approx(float(still.total), rel=1e-5)
    assert record["cross_entropy"] != pytest.approx(noisy.cross_entropy.tolist(), rel=1e-3)


def test_the_first_stage_keeps_its_dropout(trainer: Any) -> None:
    _, model = trainer(model=GATED, objective={"placement": "exit-weighted"}, steps=1)
    assert model.training
