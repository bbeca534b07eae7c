"""The next batch, read by a thread while the step runs.

Batches are pure functions of (seed, step), so reading ahead changes nothing that is computed. On CUDA the batch is
copied to pinned memory by the thread and sent without waiting. Memory: one batch of token ids ahead.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from loopscope.data.windows import Batch


@runtime_checkable
class TrainingWindows(Protocol):
    """Source of batches: a pure function of its arguments."""

    def __len__(self) -> int: ...

    def batch(
        self, seed: int, step: int, rank: int, batch_size: int, world: int = 1
    ) -> tuple[Tensor, Tensor]: ...


class Prefetcher:
    """Batches of one run by step (0-based), on the device; a context manager, because it owns a thread.

    Args:
        batch: rows of a step's batch.
        rows: those that this process takes of them; None: all. The batch is read whole, so that it is the same one
            however many processes share it.

    Attributes:
        waited: seconds that steps have waited for data so far.
    """

    def __init__(
        self,
        windows: TrainingWindows,
        seed: int,
        batch: int,
        steps: int,
        device: torch.device,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.rows = rows
        self.windows = windows
        self.seed = seed
        self.size = batch
        self.steps = steps
        self.device = device
        self.waited = 0.0
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self.ahead: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thread.shutdown(wait=True, cancel_futures=True)

    def get(self, step: int) -> Batch:
        """Return inputs and labels of a step, and begin reading the next one's. What reading raised is raised here."""
        began = time.perf_counter()
        if self.ahead is not None and self.ahead[0] == step:
            inputs, labels = self.ahead[1].result()
        else:
            inputs, labels = self._read(step)
        self.ahead = None
        if step + 1 < self.steps:
            self.ahead = step + 1, self.thread.submit(self._read, step + 1)
        inputs, labels = (part.to(self.device, non_blocking=True) for part in (inputs, labels))
        self.waited += time.perf_counter() - began
        return inputs, labels

    def _read(self, step: int) -> Batch:
        inputs, labels = self.windows.batch(self.seed, step, 0, self.size)
        if self.rows is not None:
            inputs, labels = inputs[self.rows], labels[self.rows]
        if self.device.type == "cuda":
            return inputs.pin_memory(), labels.pin_memory()
        return inputs, labels
