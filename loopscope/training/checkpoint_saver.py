"""When a run's checkpoints are saved and how: in the background where that pays, and again where a disk was full.

In the background: the state is copied (which the training waits for), and a thread writes, hashes and syncs the copy
while training goes on. It costs the memory of the copy. A kill meanwhile loses what a kill just before the save would
have lost: the checkpoint before is whole until the new one has its name.
"""

import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from torch import nn

from loopscope.machine_memory import free_bytes
from loopscope.results import LoopMetrics
from loopscope.results.faults import PASSING, cause_of
from loopscope.results.layout import checkpoint_folder, newest_checkpoint
from loopscope.training.checkpoint import (
    Progress,
    Retention,
    Snapshot,
    ValidationScore,
    take_snapshot,
    write_snapshot,
)
from loopscope.training.config import TrainingConfig
from loopscope.training.optimizer_state import AnyOptimizer, state_bytes

BACKGROUND_FROM = 64 * 2**20
"""Bytes of weights and optimizer state from which a save goes on in the background by itself."""
SHARE_OF_FREE_MEMORY = 0.5
"""The copy takes no more than this of what is free; else the save is waited for."""


class CheckpointSaver:
    """Saves the checkpoints of one run, within a `with` block: at its end nothing is being written any more.

    Args:
        files: text files that go into every checkpoint (config, tokenizer).
    """

    def __init__(self, run: str | Path, files: Mapping[str, str], config: TrainingConfig) -> None:
        self.run, self.files, self.config = Path(run), files, config
        self.kept = Retention(config.keep_last, config.keep_best)
        self._thread: threading.Thread | None = None
        self._refused: tuple[int, BaseException] | None = None

    def save(
        self,
        progress: Progress,
        model: nn.Module,
        optimizer: AnyOptimizer,
        held_out: Sequence[LoopMetrics] = (),
        last: bool = False,
    ) -> None:
        """Save where a run stands; what is being written is waited for first.

        Args:
            held_out: what the loops are worth now on `evaluate_windows` of held-out text; the best are kept by it.
            last: no save will follow: it is waited for, and a full disk is an error.

        Raises:
            OSError: the system refused, and waiting will not help, or this was the last save.
        """
        self.wait()
        background = not last and self._in_background(model, optimizer)
        score = None
        if self.config.keep_best and held_out and math.isfinite(held_out[-1].loss):
            score = ValidationScore(held_out[-1].loss, self.config.evaluate_windows)
        snapshot = take_snapshot(self.run, progress, model, optimizer, self.files, score, background)
        if background:
            # Not to be waited for by an interpreter that is told to stop at once.
            self._thread = threading.Thread(target=self._write, args=(snapshot,), daemon=True)
            self._thread.start()
            return
        self._write(snapshot)
        self._answer(last)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written in the background."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait for what is being written. Warns where the disk was full; any other error is raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._answer(False)

    def poll(self) -> None:
        """Tell of a save in the background that was refused, without waiting for one that is under way."""
        if not self.busy:
            self.wait()

    def __enter__(self) -> "CheckpointSaver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        elif not issubclass(kind, KeyboardInterrupt) and self._thread is not None:
            self._thread.join()  # what is being written is worth having; the error is the one to hear of

    def _in_background(self, model: nn.Module, optimizer: AnyOptimizer) -> bool:
        if self.config.save != "auto":
            return self.config.save == "background"
        size, free = state_bytes(model, optimizer), free_bytes()
        return size >= BACKGROUND_FROM and free is not None and size <= free * SHARE_OF_FREE_MEMORY

    def _write(self, snapshot: Snapshot) -> None:
        try:
            write_snapshot(self.run, snapshot, self.kept)
        except BaseException as error:
            self._refused = (snapshot.progress.step, error)

    def _answer(self, last: bool) -> None:
        """Raise what a save was refused with, or warn where it may be tried again."""
        if self._refused is None:
            return
        step, error = self._refused
        self._refused = None
        whole = newest_checkpoint(self.run)
        if last or not isinstance(error, OSError) or error.errno not in PASSING:
            if isinstance(error, OSError) and whole is not None:
                error.add_note(f"then --resume goes on from {whole.name}")
            raise error
        warnings.warn(
            f"{checkpoint_folder(self.run, step)} was not saved: {cause_of(error)}. Training goes on and tries again "
            f"at the next save; until then {f'{whole.name} is the newest' if whole else 'there is no checkpoint'}",
            stacklevel=3,
        )
