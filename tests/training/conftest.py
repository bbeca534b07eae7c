"""A tiny learnable problem that needs no corpus: repeating sequences."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.training.config import TrainingConfig
from loopscope.training.loop import Outcome, TrainingData, train

VOCABULARY, SEQUENCE = 17, 12


class Counting:
    """Windows that count upwards modulo the vocabulary from a start drawn from (seed, step, rank)."""

    def __len__(self) -> int:
        return 64

    def batch(
        self, seed: int, step: int, rank: int, batch_size: int, world: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(1000 * seed + 10 * step + rank)
        start = torch.randint(VOCABULARY, (batch_size, 1), generator=generator)
        tokens = (start + torch.arange(SEQUENCE + 1)) % VOCABULARY
        return tokens[:, :-1], tokens[:, 1:]


def validation(limit: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for step in range(2 if limit is None else 1):
        yield Counting().batch(99, step, 0, 4)


DATA = TrainingData(train=Counting(), validation=validation, bytes_per_token=2.0)

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
        built = build_objective(ObjectiveConfig(**(objective or {})))
        outcome = train(looped, built, DATA, config, tmp_path / folder, files, quiet=True)
        return outcome, looped

    return run
