"""Who runs the jobs of a study: takes them, says which of them are alive, and why one that is not has ended."""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from loopscope.jobs.cell_job import CellJob
from loopscope.jobs.submitted import Submitted

LAST_LINES = 200
"""Characters of a job's log that a message repeats."""


class SchedulerSilentError(ValueError):
    """A scheduler that does not answer, so that nobody knows which jobs there are."""


class AbstractScheduler(ABC):
    """Runs jobs of a study.

    Attributes:
        name: as `--launcher` has it.
        poll: seconds between looks at it.
        patience: seconds until a job that it does not know any more, without a result, counts as lost.
    """

    name: ClassVar[str]
    poll: float
    patience: float

    @abstractmethod
    def room(self, alive: Collection[Submitted]) -> int:
        """Return how many more jobs it takes now."""

    @abstractmethod
    def submit(self, jobs: Sequence[CellJob], alive: Collection[Submitted]) -> list[Submitted]:
        """Take jobs, and return how each is known from now on.

        Raises:
            ValueError: they are refused; says by whom and why.
        """

    @abstractmethod
    def alive(self, jobs: Collection[Submitted]) -> Mapping[str, tuple[str, str]]:
        """Return of the jobs that wait or run, by their number, the state (queued, running) and where.

        Raises:
            SchedulerSilentError: it does not answer.
        """

    @abstractmethod
    def why(self, job: Submitted) -> str:
        """Return in a few words how a job ended that left no result; empty where it was cancelled."""

    @abstractmethod
    def end_command(self, jobs: Collection[Submitted]) -> str:
        """Return the command that ends jobs; each saves first."""

    @abstractmethod
    def log(self, job: Submitted) -> Path:
        """Return where a job prints."""


def last_words(log: Path) -> str:
    """Return the last line of a job's log, cut where it is long; empty without one."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][-LAST_LINES:] if lines else ""


def output_of(command: Sequence[str]) -> str:
    """Return what a program prints.

    Raises:
        SchedulerSilentError: it is not there, fails, or takes more than a minute; with what it said.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise SchedulerSilentError(f"{command[0]} does not answer ({error}); try again later") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-LAST_LINES:]
        raise SchedulerSilentError(
            f"{command[0]} fails ({said or f'exit status {done.returncode}'}); try again later"
        )
    return done.stdout
