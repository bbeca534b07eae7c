"""TensorBoard: event files in the run's own folder.

TensorBoard draws one chart per tag, with a line per run that has it. So every loop is a run of its own below the run
(`tensorboard/loop-01`), and all of them share one tag: its first page then shows one chart with a line per loop. A
custom layout would ask for another tab.
"""

from collections.abc import Mapping
from pathlib import Path

from loopscope.results.layout import TENSORBOARD
from loopscope.training.loggers.base import AbstractLogger, LoggedRun

SHOWN_BYTES = 200_000
"""Of a file's text: it has no artifacts, and longer ones are named instead."""


class TensorboardLogger(AbstractLogger):
    """Curves and texts as event files; a file is kept as its text where it is one, and else by where it lies."""

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / TENSORBOARD
        digits = len(str(max(run.loops)))
        self.main = SummaryWriter(str(folder))
        self.loops = {loop: SummaryWriter(str(folder / f"loop-{loop:0{digits}}")) for loop in run.loops}

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Write, at once: what a kill leaves can be read."""
        for name, value in values.items():
            self.main.add_scalar(name, value, step)
        self.main.flush()

    def by_loop(self, step: int, values: Mapping[str, Mapping[int, float]]) -> None:
        """Write each loop's value to the run of that loop."""
        for name, line in values.items():
            for loop, value in line.items():
                self.loops[loop].add_scalar(name, value, step)
        for writer in self.loops.values():
            writer.flush()

    def text(self, title: str, text: str) -> None:
        """Write to the page of texts."""
        self.main.add_text(title, text)
        self.main.flush()

    def file(self, path: Path) -> None:
        """Write its text, in a block that keeps lines and signs."""
        text = f"{path}: {path.stat().st_size:,} bytes"
        if path.suffix in (".yaml", ".json", ".txt") and path.stat().st_size <= SHOWN_BYTES:
            text = "\n".join(f"    {line}" for line in path.read_text(encoding="utf-8").splitlines())
        self.text(path.name, text)

    def close(self) -> None:
        """Write what is left."""
        for writer in (self.main, *self.loops.values()):
            writer.close()
