"""The figures of a page, drawn by a process a core, up to four: matplotlib takes most of the time of a report.

`python -m loopscope.report.plots.drawing` draws what its standard input holds, for the process that started it.
"""

import gc
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import IO

from loopscope.machine_limits import usable_cores
from loopscope.report.plots.figure import Figure
from loopscope.report.plots.sheet import Sheet

SHARED_FROM = 12
"""Figures from which on another process, which starts in about the time of three, saves time."""
MOST_PROCESSES = 4
"""Processes, this one included."""


@dataclass(frozen=True)
class Job:
    """Figures that are drawn side by side. `title` heads them all; None heads each with its own."""

    key: str  # of the drawing
    figures: tuple[Figure, ...]
    title: str | None

    @property
    def size(self) -> int:
        """About how long it takes: what takes longest is begun first, so that all processes end together."""
        return sum(40 * len(figure.panels) + 4 * len(figure.series) for figure in self.figures)


class Drawing:
    """A page's drawings in the making. Other processes start at once; `begin` gives them figures, `sheets` waits.

    Args:
        figures: about how many there will be: for a few, no other process is started.
        processes: how many draw, this one included; None takes one a core, up to four, and one for a few figures.
    """

    def __init__(self, figures: int, processes: int | None = None) -> None:
        count = _processes(figures) if processes is None else processes
        self._others = [process for _ in range(count - 1) if (process := _start())]
        self._todo: deque[Job] = deque()
        self._done: dict[str, Sheet] = {}
        self._threads: list[Thread] = []

    def __enter__(self) -> "Drawing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the other processes: what is left is not drawn."""
        self._todo.clear()
        for thread in self._threads:
            thread.join()
        for process in self._others:
            with suppress(OSError), process:  # its input ends, and it with it
                pass

    def begin(self, jobs: Iterable[Job]) -> None:
        """Have the other processes draw these, each taking the next one when it is done with one."""
        self._todo.extend(sorted(jobs, key=lambda job: job.size, reverse=True))
        self._threads = [Thread(target=self._feed, args=(process,)) for process in self._others]
        for thread in self._threads:
            thread.start()

    def sheets(self) -> Mapping[str, Sheet]:
        """Draw what is left, and return every drawing by its key."""
        while True:
            while (job := _next(self._todo)) is not None:
                self._done[job.key] = _draw(job)
            for thread in self._threads:
                thread.join()
            if not self._todo:  # a process that could not start or ended early costs time only
                return self._done

    def _feed(self, process: "subprocess.Popen[bytes]") -> None:
        """Give a process one job after the other, until there is none left or it has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        while (job := _next(self._todo)) is not None:
            try:
                _write(process.stdin, job)
                self._done[job.key] = pickle.load(process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError):
                self._todo.append(job)
                return


def draw_all(stream: IO[bytes], back: IO[bytes]) -> None:
    """Draw every job that a stream holds, one after the other, and write each drawing back."""
    gc.disable()  # a drawing is of many small parts that hold each other; this process ends with the page
    while True:
        try:
            job = pickle.load(stream)
        except EOFError:
            return
        _write(back, _draw(job))


def _processes(figures: int) -> int:
    return min(max(1, int(usable_cores())), MOST_PROCESSES) if figures >= SHARED_FROM else 1


def _next(jobs: "deque[Job]") -> Job | None:
    try:
        return jobs.popleft()
    except IndexError:
        return None


def _draw(job: Job) -> Sheet:
    from loopscope.report.plots.to_matplotlib import (
        sheet,
    )  # a process that has others draw need not load matplotlib

    return sheet(job.figures, job.title)


def _start() -> "subprocess.Popen[bytes] | None":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "loopscope.report.plots.drawing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError:
        return None


def _write(stream: IO[bytes], value: object) -> None:
    pickle.dump(value, stream)
    stream.flush()


if __name__ == "__main__":
    draw_all(sys.stdin.buffer, sys.stdout.buffer)
