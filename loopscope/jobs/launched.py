"""A study whose runs are jobs: those that have none are submitted, and all are watched until each has a result.

Watching is all that this process does: it may be stopped, and the jobs go on; called again, it watches those that are
there and submits no run twice.
"""

import signal
import time
from collections.abc import Mapping
from pathlib import Path

from loopscope.jobs.cell_job import GRACE, CellJob
from loopscope.jobs.cell_rows import CellRows
from loopscope.jobs.lost_run import record_failure
from loopscope.jobs.scheduler import AbstractScheduler, SchedulerSilentError, last_words
from loopscope.jobs.study_board import StudyBoard
from loopscope.jobs.study_cells import Cell, result_mark
from loopscope.jobs.study_results import collect_meanwhile
from loopscope.jobs.submitted import Submitted, changing_submitted, jobs_of, read_submitted, run_key
from loopscope.results.lock import present_holder


class WatchStoppedError(KeyboardInterrupt):
    """A study that nobody watches any more, and whose jobs go on.

    Attributes:
        signal: which one stopped the watching.
    """

    watching = True

    def __init__(self, number: int, jobs: int, end: str) -> None:
        self.signal = number
        what = f"{jobs} jobs go on (to end them, saved: {end})" if jobs else "no job is left"
        super().__init__(f"stopped watching; {what}")


def train_as_jobs(
    cells: list[Cell], scheduler: AbstractScheduler, out: Path, gpus: int, quiet: bool, wait: bool
) -> None:
    """Submit the cells that have no job, and watch all until each is done.

    Args:
        gpus: that each job asks for.
        wait: watch; False submits and leaves them.

    Raises:
        ValueError: the jobs are refused, or it is not known which runs have one.
        WatchStoppedError: (a KeyboardInterrupt) Ctrl-C or SIGTERM: the jobs go on.
    """
    board = StudyBoard("study", len(cells), quiet)
    watch = _Watch(cells, scheduler, out, gpus, board)
    with board:
        try:
            watch.submit(alone=not wait)
            while wait and watch.open:
                watch.look()
                if watch.open:
                    time.sleep(scheduler.poll)
        except KeyboardInterrupt as stop:
            jobs = watch.alive_jobs()
            number = int(getattr(stop, "signal", signal.SIGINT))
            raise WatchStoppedError(number, len(jobs), scheduler.end_command(jobs)) from None


class _Watch:
    """The cells of a study, the job of each, and how far they are."""

    def __init__(
        self, cells: list[Cell], scheduler: AbstractScheduler, out: Path, gpus: int, board: StudyBoard
    ) -> None:
        self.cells, self.scheduler, self.out, self.gpus, self.board = cells, scheduler, out, gpus, board
        self.keys = {run_key(out, cell.run): cell for cell in cells}
        self.open = dict(self.keys)
        self.rows = CellRows(cells)
        self.alive: Mapping[str, tuple[str, str]] = {}
        self.missing: dict[str, float] = {}
        self.watched: set[str] = set()
        self.silent = self.told = False

    def submit(self, alone: bool = False) -> None:
        """Submit runs that have no job that is alive, as many as there is room for.

        Args:
            alone: nobody will watch: say which jobs there are.
        """
        with changing_submitted(self.out) as kept:
            known = jobs_of(kept, self.scheduler.name, self.keys)
            self.alive = self.scheduler.alive(known.values())
            at_work = {key: job for key, job in known.items() if job.job in self.alive}
            waiting = {
                key: cell
                for key, cell in self.open.items()
                if key not in at_work and key not in self.watched and not present_holder(cell.run)
            }
            room = self.scheduler.room(at_work.values())
            new = dict(list(waiting.items())[:room])
            if new:
                jobs = [self._job(cell) for cell in new.values()]
                made = self.scheduler.submit(jobs, list(at_work.values()))
                kept.update(zip(new, made, strict=True))
                self.board.say(f"{len(new)} jobs submitted ({self.scheduler.end_command(made)} ends them)")
        if at_work and not self.told:
            self.board.say(f"{len(at_work)} of {len(self.cells)} runs have a job already")
        self.told = True
        self.watched.update(at_work, new)
        left = len(waiting) - len(new)
        if alone and left:
            self.board.say(f"{left} runs wait for a place; call again to start them")

    def look(self) -> None:
        """See how far all are, and note what has ended."""
        kept = read_submitted(self.out)
        jobs = {
            key: kept[key] for key in self.open if key in kept and kept[key].launcher == self.scheduler.name
        }
        try:
            self.alive = self.scheduler.alive(jobs.values())
            self.silent = False
            self._note_ends(jobs)
            if self.open.keys() - self.watched:
                self.submit()
        except SchedulerSilentError as error:
            if not self.silent:
                self.board.say(str(error))
            self.silent = True
            self._note_ends(jobs)
        trained = {
            cell.run: self.alive[jobs[key].job] for key, cell in self.open.items() if self._has(jobs, key)
        }
        self.board.show(self.rows.now(trained))

    def alive_jobs(self) -> list[Submitted]:
        """Return the jobs of this study that have not ended as far as it was seen."""
        jobs = jobs_of(read_submitted(self.out), self.scheduler.name, self.watched & self.open.keys())
        return list(jobs.values())

    def _note_ends(self, jobs: Mapping[str, Submitted]) -> None:
        """Leave out what is done, and collect its results."""
        done = [key for key, cell in self.open.items() if self._is_done(key, cell, jobs.get(key))]
        for key in done:
            del self.open[key]
        if done:
            collect_meanwhile(self.out, self.board.say)

    def _has(self, jobs: Mapping[str, Submitted], key: str) -> bool:
        return key in jobs and jobs[key].job in self.alive

    def _is_done(self, key: str, cell: Cell, job: Submitted | None) -> bool:
        """Whether nothing is left to wait for: there is a result, or the job is gone without one."""
        if result_mark(cell.run) != cell.before:
            return True
        if job is None or self.silent or key not in self.watched:
            return False
        if job.job in self.alive or present_holder(cell.run):
            self.missing.pop(key, None)
            return False
        since = self.missing.setdefault(key, time.monotonic())
        if time.monotonic() - since < self.scheduler.patience:
            return False
        why = self.scheduler.why(job)
        if job.ended or not why:
            self.board.say(
                f"{cell.name}: {job.ended or 'its job was cancelled'}; call again to go on with it"
            )
            return True
        log = self.scheduler.log(job)
        words = last_words(log)
        said = f"job {job.job} ended without a result ({why}); its log is {log}" + (
            f": {words}" if words else ""
        )
        record_failure(cell, said, self.board.say)
        return True

    def _job(self, cell: Cell) -> CellJob:
        return CellJob(
            out=str(self.out.absolute()),
            run=str(cell.run.absolute()),
            config=cell.asked.model_dump(mode="json"),
            before=cell.before,
            gpus=self.gpus,
            grace=GRACE if self.scheduler.name == "slurm" else 0.0,
        )
