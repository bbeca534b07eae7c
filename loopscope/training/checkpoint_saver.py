"""When a run's checkpoints are saved and how: in the background where that pays, and again where a disk was full.

In the background: the state is copied (which the training waits for), and a thread writes, hashes and syncs the copy
while training goes on. It costs the memory of the copy. A kill meanwhile loses what a kill just before the save would
have lost: the checkpoint before is whole until the new one has its name.

Of several processes the first one writes; where weights are in shards (FSDP2), every process writes its own.
"""

import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from loopscope.machine_limits import free_bytes
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
from loopscope.training.distributed.consensus import decided_first
from loopscope.training.distributed.ranks import ALONE, Ranks
from loopscope.training.distributed.wrapper import AbstractWrapper
from loopscope.training.optim import Optimizer
from loopscope.training.optimizer_state import state_bytes

BACKGROUND_FROM = 64 * 2**20
"""Bytes of weights and optimizer state from which a save goes on in the background by itself."""
SHARE_OF_FREE_MEMORY = 0.5
"""The copy takes no more than this of what is free; else the save is waited for."""


class CheckpointSaver:
    """Saves the checkpoints of one run, within a `with` block: at its end nothing is being written any more.

    Args:
        files: text files that go into every checkpoint (config, tokenizer).
        wrapper: the model, as it is trained.
        ranks: the processes that train it. All of them call everything here alike.
    """

    def __init__(
        self,
        run: str | Path,
        files: Mapping[str, str],
        config: TrainingConfig,
        wrapper: AbstractWrapper,
        ranks: Ranks = ALONE,
    ) -> None:
        self.run, self.files, self.config = Path(run), files, config
        self.wrapper, self.ranks = wrapper, ranks
        self.kept = Retention(config.keep_last, config.keep_best)
        self.in_shards = wrapper.strategy == "fsdp"
        if self.in_shards:
            from loopscope.training.distributed.sharded_checkpoint import ranks_for_saves

            self.saving = ranks_for_saves(ranks)
        self._thread: threading.Thread | None = None
        self._refused: tuple[int, BaseException] | None = None

    def save(
        self,
        progress: Progress,
        optimizer: Optimizer,
        held_out: Sequence[LoopMetrics] = (),
        last: bool = False,
    ) -> None:
        """Save where a run stands; what is being written is waited for first.

        Args:
            held_out: what the loops are worth now on `evaluate_windows` of held-out text; the best are kept by it.
            last: no save will follow: it is waited for, and a full disk is an error.

        Raises:
            OSError: the system refused, and waiting will not help, or this was the last save.
            ElsewhereError: (a ValueError) so it did in the process that writes.
        """
        if self.in_shards:
            self._save(progress, optimizer, held_out, last)
        else:
            decided_first(self.ranks, lambda: self._save(progress, optimizer, held_out, last))

    def _save(
        self, progress: Progress, optimizer: Optimizer, held_out: Sequence[LoopMetrics], last: bool
    ) -> None:
        self.wait()
        background = not last and self._in_background(optimizer)
        score = None
        if self.config.keep_best and held_out and math.isfinite(held_out[-1].loss):
            score = ValidationScore(held_out[-1].loss, self.config.evaluate_windows)
        snapshot = take_snapshot(
            self.run,
            progress,
            self.wrapper.model,
            optimizer,
            self.files,
            score,
            copied=background and not self.in_shards,
        )
        write = self._written(snapshot, background)
        if background:
            # Not to be waited for by an interpreter that is told to stop at once.
            self._thread = threading.Thread(target=self._try, args=(progress.step, write), daemon=True)
            self._thread.start()
            return
        self._try(progress.step, write)
        self._answer(last)

    def _written(self, snapshot: Snapshot, background: bool) -> Callable[[], object]:
        """Return what writes a snapshot. Of shares the copy is made, or all is written, before it returns."""
        if not self.in_shards:
            return lambda: write_snapshot(self.run, snapshot, self.kept)
        from loopscope.training.distributed.sharded_checkpoint import ShardedSave

        return ShardedSave(self.run, snapshot, self.kept, self.saving, background).finish

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
        """Tell of a save in the background that was refused, without waiting for one that is under way.

        Several processes hear of it at the next save, all at once.
        """
        if self.ranks.alone and not self.busy:
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

    def _in_background(self, optimizer: Optimizer) -> bool:
        if self.config.save != "auto":
            return self.config.save == "background"
        size, free = state_bytes(self.wrapper.model, optimizer), free_bytes()
        here = size * self.ranks.local_world // self.ranks.world if self.in_shards else size
        found = size >= BACKGROUND_FROM and free is not None and here <= free * SHARE_OF_FREE_MEMORY
        return self.ranks.told(found) if self.in_shards else found

    def _try(self, step: int, write: Callable[[], object]) -> None:
        try:
            write()
        except BaseException as error:
            self._refused = (step, error)

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
        if not self.ranks.first:
            return
        warnings.warn(
            f"{checkpoint_folder(self.run, step)} was not saved: {cause_of(error)}. Training goes on and tries again "
            f"at the next save; until then {f'{whole.name} is the newest' if whole else 'there is no checkpoint'}",
            stacklevel=3,
        )
