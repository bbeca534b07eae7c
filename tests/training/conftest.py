"""Trains a tiny model on a problem that needs no corpus."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.training import loop as loop_module
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


@pytest.fixture
def killed(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Train, and die at a step before it is saved."""

    def run(folder: str, at: int, **settings: Any) -> None:
        with monkeypatch.context() as patch:
            real = loop_module.log_step

            def dying(log: Any, display: Any, step: int, *rest: Any) -> None:
                real(log, display, step, *rest)
                if step == at:
                    raise KeyboardInterrupt

            patch.setattr(loop_module, "log_step", dying)
            with pytest.raises(KeyboardInterrupt):
                trainer(folder, **settings)

    return run
