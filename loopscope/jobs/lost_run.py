"""A run that ended in another process without a record: it gets one, so that a study knows of it."""

import time
from collections.abc import Callable

from loopscope.jobs.study_cells import Cell, result_mark
from loopscope.jobs.train import failed
from loopscope.results.faults import in_words
from loopscope.results.lock import FolderHeldError, hold


class LostProcessError(RuntimeError):
    """The process or job that trained a run ended without a result."""


def record_failure(cell: Cell, why: str, say: Callable[[str], None]) -> None:
    """Keep that a run failed, where nobody has written a result of it since, and nobody is at it now."""
    try:
        with hold(cell.run):
            if result_mark(cell.run) == cell.before:
                failed(cell.config, cell.run, LostProcessError(why), time.monotonic())
                say(f"{cell.name} failed: {why}")
    except FolderHeldError as error:
        say(f"{cell.name}: {why}; {error.holder} goes on with it")
    except OSError as full:
        say(f"{cell.name} failed: {why}; no record of it could be kept: {in_words(full)}")
