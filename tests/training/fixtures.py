"""A tiny learnable problem that needs no corpus: repeating sequences; and how a Trainer trains in the tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from loopscope.training.loop import TrainingData

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


def trainer_arguments(folder: Path, steps: int, **changes: Any) -> Any:
    """Arguments of a Hugging Face Trainer on the CPU: a constant rate, every step logged, nothing saved or shown."""
    from transformers import TrainingArguments

    settings: dict[str, Any] = {
        "max_steps": steps,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **changes,
    }
    return TrainingArguments(str(folder), **settings)
