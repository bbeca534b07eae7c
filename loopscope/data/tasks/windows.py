"""Batches of problems as a pure function of (seed, step, rank), in two parts that share no problem.

A problem belongs to the held-out part where a hash of its tokens says so, whoever draws it: training draws until it has
enough of the one part, validation of the other. Problems are made as they are asked for: nothing is kept.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int

from loopscope.data.tasks.base import AbstractTask, Problems
from loopscope.data.windows import Batch, check_rank

Split = Literal["training", "validation"]

HELD_OUT = 8
"""One problem in so many is held out."""
EPOCH = 2**16
"""Problems that count as one pass: training problems are drawn anew at every step, and do not end."""
_STREAMS = {
    "training": 0x7A5C,
    "validation": 0x7A5D,
}  # keep these draws apart from every other use of (seed, step)
_TRIES = 200
_CHUNK = 64  # validation problems that are drawn together


class TaskWindows:
    """Windows of one problem each, drawn by (seed, step) as those of text are.

    Args:
        problems: how many there are: of validation the number of held-out problems, of training what an epoch is.

    Raises:
        ValueError: the task has no problem in this part, because it has too few in all.
    """

    def __init__(self, task: AbstractTask, part: Split, problems: int = EPOCH) -> None:
        self.task = task
        self.part: Split = part
        self.count = problems
        self._draw([0, 0, 0], 1)

    def __len__(self) -> int:
        return self.count

    def batch(self, seed: int, step: int, rank: int, batch_size: int, world: int = 1) -> Batch:
        """Return the batch of one rank at one step (0-based): inputs and labels."""
        check_rank(rank, world)
        return _tensors(self._draw([seed, step, rank], batch_size))

    def sequential(self, batch_size: int, limit_windows: int | None = None) -> Iterator[Batch]:
        """Yield the problems in order, for evaluation; with a limit, so many of them from the first on."""
        count = self.count if limit_windows is None else min(limit_windows, self.count)
        chunks = [self._draw([0, chunk, 0], _CHUNK) for chunk in range(-(-count // _CHUNK))]
        input_ids, labels = (
            np.concatenate([getattr(chunk, name) for chunk in chunks])[:count]
            for name in ("input_ids", "labels")
        )
        for start in range(0, count, batch_size):
            own = slice(start, start + batch_size)
            yield _tensors(Problems(input_ids[own], labels[own]))

    def _draw(self, key: list[int], count: int) -> Problems:
        generator = np.random.default_rng([_STREAMS[self.part], *key])
        kept: list[Problems] = []
        have = 0
        for _ in range(_TRIES):
            drawn = self.task.draw(generator, 2 * count if self.part == "training" else HELD_OUT * count)
            mine = is_held_out(drawn.input_ids) == (self.part == "validation")
            kept.append(Problems(drawn.input_ids[mine], drawn.labels[mine]))
            have += int(mine.sum())
            if have >= count:
                return Problems(
                    np.concatenate([part.input_ids for part in kept])[:count],
                    np.concatenate([part.labels for part in kept])[:count],
                )
        raise ValueError(
            f"data.task has too few different problems of {self.task.width} tokens for a {self.part} part: one in "
            f"{HELD_OUT} is held out. Raise its difficulty (or model.sequence), so that there are more"
        )


def is_held_out(input_ids: Int[np.ndarray, "batch seq"]) -> Bool[np.ndarray, " batch"]:
    """Return whether each problem belongs to the held-out part: a function of its tokens alone, on every machine."""
    mixed = np.full(len(input_ids), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in range(input_ids.shape[1]):  # splitmix64's finaliser after every token
        mixed = (mixed ^ input_ids[:, column].astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    held_out: np.ndarray = mixed % np.uint64(HELD_OUT) == 0
    return held_out


def _tensors(problems: Problems) -> Batch:
    return torch.from_numpy(problems.input_ids), torch.from_numpy(problems.labels)
