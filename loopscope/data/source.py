"""What a run's data section opens: text as token files, or a task whose problems are made as they are asked for."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

from loopscope.data.config import DataConfig
from loopscope.data.lost_text import LostText
from loopscope.data.preparation import PreparedData, prepare, prepared_before
from loopscope.data.task_config import TaskConfig
from loopscope.data.tasks import TaskWindows, build_task
from loopscope.data.tokenizers import SymbolTokenizer


@dataclass(frozen=True)
class PreparedTask:
    """A task, with the tokenizer of its symbols: opens windows of problems, as `PreparedData` opens those of text."""

    config: TaskConfig

    @property
    def tokenizer(self) -> SymbolTokenizer:
        """The tokenizer of the task's symbols."""
        return SymbolTokenizer(build_task(self.config, self.config.fewest_tokens).symbols)

    @property
    def tokenizer_text(self) -> str:
        """The contents of its `tokenizer.json`."""
        return self.tokenizer.to_text()

    @property
    def bytes_per_token(self) -> float:
        """Not a number: a problem has symbols and no text, so bits per byte would mean nothing."""
        return math.nan

    @property
    def source(self) -> dict[str, Any]:
        """Nothing: its config says all."""
        return {}

    @property
    def lost(self) -> LostText:
        """Nothing: symbols are all that there is."""
        return LostText(0.0, None)

    def training_windows(self, sequence: int, stride: int | None = None) -> TaskWindows:
        """Return problems to train on. They do not overlap: a stride has no meaning here."""
        return TaskWindows(build_task(self.config, sequence), "training")

    def validation_windows(self, sequence: int) -> TaskWindows:
        """Return held-out problems, each with its one answer.

        So a window is right or wrong, however training asks.
        """
        config = self.config.model_copy(update={"answers": "last"})
        windows = TaskWindows(build_task(config, sequence), "validation", config.validation)
        different = len({tuple(row) for ids, _ in windows.sequential(len(windows)) for row in ids.tolist()})
        if different < config.validation / 2:
            warnings.warn(
                f"only {different} of {config.validation} held-out problems of {config.title} are different: exact "
                "match rests on few. Raise the difficulty, so that there are more, or lower data.task.validation",
                stacklevel=2,
            )
        return windows


def opened_before(config: DataConfig) -> PreparedData | PreparedTask | None:
    """Open a task, or a corpus that was ingested before; None where that is still to do. Writes nothing.

    Raises:
        ValueError: no such file or dataset, or a token file that is damaged.
    """
    return PreparedTask(config.task) if config.corpus == "task" else prepared_before(config)


def open_data(config: DataConfig, progress: bool = True) -> PreparedData | PreparedTask:
    """Open a task, or a corpus, which is ingested where it was not yet; return what opens its windows.

    Args:
        progress: show the ingestion (on standard error).

    Raises:
        ValueError: no such file or dataset, no text, or a token file that is damaged.
    """
    return PreparedTask(config.task) if config.corpus == "task" else prepare(config, progress)
