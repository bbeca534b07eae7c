"""Trains a tiny model on a problem that needs no corpus."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.training.config import TrainingConfig
from loopscope.training.loop import Outcome, train
from tests.training.fixtures import DATA, SEQUENCE, VOCABULARY

Trainer = Callable[..., tuple[Outcome, LoopedTransformer]]


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """Train a tiny model in a folder; keyword arguments change the training config."""

    def run(
        folder: str = "run",
        model: dict[str, Any] | None = None,
        objective: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Any:
        settings = {"steps": 12, "batch": 4, "log_every": 3, "precision": "fp32", "device": "cpu", **changes}
        config = TrainingConfig(**settings)
        torch.manual_seed(config.seed)
        looped = LoopedTransformer(
            ModelConfig(
                **{
                    "dim": 16,
                    "heads": 2,
                    "layers": 1,
                    "loops": 3,
                    "vocabulary": VOCABULARY,
                    "sequence": SEQUENCE,
                    "dropout": 0.1,
                    **(model or {}),
                }
            )
        )
        files = {"config.yaml": "model: {}\n"}
        minimised = ObjectiveConfig(**(objective or {}))
        outcome = train(looped, minimised, DATA, config, tmp_path / folder, files, quiet=True)
        return outcome, looped

    return run
