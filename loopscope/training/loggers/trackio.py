"""Trackio: a database on this machine (`TRACKIO_DIR`), a Hugging Face Space (`TRACKIO_SPACE_ID`) or a server.

It draws one chart per metric, with a line per run. So every loop is a run of its own in the run's group, and all of
them share one metric: its first page then shows one chart with a line per loop.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Mapping
from contextvars import copy_context
from pathlib import Path
from typing import Any

from loopscope.training.loggers.base import AbstractLogger, LoggedRun


class TrackioLogger(AbstractLogger):
    """Curves as metrics, texts as reports, files as artifacts."""

    def __init__(self, run: LoggedRun) -> None:
        # Runs are found again by name, and a name may be taken: the identity makes it this run's own.
        self.name = f"{run.name}-{run.identity}"
        self.files: list[Path] = []
        # Its threads do not raise, and warn once a run: `_check` makes one failure of that.
        warnings.filterwarnings("ignore", module=r"trackio\.")
        self.main = _opened(run, self.name, self.name)
        self.loops = {loop: _opened(run, f"{self.name} loop {loop}", self.name) for loop in run.loops}

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Hand over to its thread, which writes twice a second."""
        self._check()
        self.main.log(dict(values), step=step)

    def by_loop(self, step: int, values: Mapping[str, Mapping[int, float]]) -> None:
        """Give each loop's values to the run of that loop, in one row."""
        for loop, run in self.loops.items():
            row = {name: line[loop] for name, line in values.items() if loop in line}
            if row:
                run.log(row, step=step)

    def text(self, title: str, text: str) -> None:
        """Keep a report; the newest of a title is the one to read."""
        from trackio import Markdown

        self.main.log({title: Markdown(text)})

    def file(self, path: Path) -> None:
        """Keep an artifact named after the run and the file, when it is closed; the same content is kept once.

        Curves wait for a Space that is being built; an artifact fails after a minute, and would hold up the start.
        """
        self.files.append(path)

    def close(self) -> None:
        """Hand over files, and wait for its threads."""
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                for path in dict.fromkeys(self.files):
                    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{self.name}-{path.name}")
                    self.main.log_artifact(path, name=name, type=path.stem)
            finally:
                for run in (self.main, *self.loops.values()):
                    run.finish()
        self._check()

    def _check(self) -> None:
        """Raise where one of its threads could not write or send."""
        for run in (self.main, *self.loops.values()):
            if failed := getattr(run, "_warned_failures", None):
                raise RuntimeError(f"what was logged could not be kept: {', '.join(sorted(failed))}")


def _opened(run: LoggedRun, name: str, group: str) -> Any:
    """One of its runs. Each in a context of its own, as one context has one run and ends it for the next."""
    import trackio

    def begin() -> Any:
        return trackio.init(
            project=run.project,
            name=name,
            group=group,
            config=dict(run.config),
            resume="never" if run.before is None else "allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    with contextlib.redirect_stdout(io.StringIO()):  # it says how to open its dashboard, once a run
        return copy_context().run(begin)
