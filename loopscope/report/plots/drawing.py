"""The figures of a page, drawn by a process a core, up to four: matplotlib takes most of the time of a report.

`python -m loopscope.report.plots.drawing` draws what its standard input holds, for the process that started it.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence

from loopscope.report.plots.figure import Figure
from loopscope.report.plots.sheet import Sheet, sheet

SHARED_FROM = 12
"""Figures from which on another process, which starts in about the time of three, saves time."""
MOST_PROCESSES = 4
"""Processes, this one included."""


class Drawing:
    """Figures that are being drawn: started at once, and whole when `sheets` is asked for.

    Args:
        figures: each is drawn under its title.
        processes: how many draw, this one included; None takes one a core, up to four, and one for a few figures.
    """

    def __init__(self, figures: Sequence[Figure], processes: int | None = None) -> None:
        count = _processes(len(figures)) if processes is None else processes
        self._own = figures[::count]
        self._others = [
            (part, _start(part)) for part in (figures[place::count] for place in range(1, count)) if part
        ]

    def sheets(self) -> dict[str, Sheet]:
        """Draw this process's share, and return everyone's by the figure's key."""
        done = _draw(self._own)
        for part, process in self._others:
            done |= _result(process) or _draw(
                part
            )  # a process that could not start or ended early costs time only
        return done


def _processes(figures: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES) if figures >= SHARED_FROM else 1


def _draw(figures: Sequence[Figure]) -> dict[str, Sheet]:
    return {figure.key: sheet([figure], figure.title) for figure in figures}


def _start(figures: Sequence[Figure]) -> subprocess.Popen[bytes] | None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "loopscope.report.plots.drawing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert process.stdin is not None
        with process.stdin as stream:
            pickle.dump(list(figures), stream)
    except OSError:
        return None
    return process


def _result(process: subprocess.Popen[bytes] | None) -> Mapping[str, Sheet] | None:
    if process is None or process.stdout is None:
        return None
    with process, process.stdout as stream:
        text = stream.read()
    return pickle.loads(text) if process.returncode == 0 else None


if __name__ == "__main__":
    pickle.dump(_draw(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)
