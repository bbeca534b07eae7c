"""A tiny learnable problem that needs no corpus: repeating sequences."""

from collections.abc import Iterator

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
