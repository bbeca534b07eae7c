"""A run of a study as a job of a cluster: what submitit pickles, and calls on the node.

It goes on from its newest checkpoint whenever it is started, so being preempted, running out of time and a lost node
are alike. Whether it succeeded is said by the run's own result, nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.jobs.job_signals import JobSignals
from loopscope.results.exit_status import REQUEUE

GRACE = 300.0
"""Seconds that a job of Slurm waits, saved, after a SIGTERM: what is preempted is killed then and queued by Slurm, and
would not be if it ended first."""
HELD_FOR = 60.0
"""Seconds that a job waits for a run that another process holds: one that is being killed, on another node."""


@dataclass(frozen=True)
class CellJob:
    """Trains one run of a study when it is called.

    Attributes:
        out: the study's folder.
        config: nested plain values, as the study has them.
        before: mark of the run's result when it was submitted; another result since then means that it is done.
        gpus: that the job asked for.
        grace: seconds to wait, saved, where a signal says that it ends and not whether it goes on.
    """

    out: str
    run: str
    config: Mapping[str, Any]
    before: str | None
    gpus: int = 0
    grace: float = 0.0

    def __call__(self) -> str:
        """Train, and return how that ended, for submitit's record."""
        from loopscope.jobs.submitted import note_end

        with JobSignals() as signals:
            try:
                return self._train()
            except KeyboardInterrupt as stop:
                said = str(stop) or "stopped before its first step"
                if not signals.requeues:
                    note_end(self.out, self.run, said)
                    signals.wait(self.grace)
                if signals.requeues:
                    note_end(self.out, self.run, None)
                    signals.put_back()
                raise SystemExit(REQUEUE) from None

    def checkpoint(self) -> Any:
        """Return what submitit starts when the job is back from the queue: the same, as its checkpoints are files."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _train(self) -> str:
        import torch

        from loopscope.config.run_config import parse_config
        from loopscope.jobs.lost_run import record_failure
        from loopscope.jobs.study import train_cell
        from loopscope.jobs.study_cells import Cell, result_mark
        from loopscope.jobs.study_results import collect_meanwhile
        from loopscope.jobs.submitted import note_end
        from loopscope.results.class_names import own_words
        from loopscope.results.lock import FolderHeldError, hold
        from loopscope.training.progress import ProgressDisplay

        with own_words():  # the user's: whoever submitted it has checked it
            config = parse_config(self.config)
        cell = Cell(Path(self.run), config, config, self.before)
        display = ProgressDisplay("study", 1, 0)
        note_end(self.out, self.run, None)
        try:
            with hold(cell.run, wait=HELD_FOR):
                if result_mark(cell.run) != cell.before:
                    return "another process has done it since"
                if self.gpus and not torch.cuda.is_available():
                    why = f"the job has asked for {self.gpus} GPUs and torch {torch.__version__} sees none on its node"
                    record_failure(cell, why, display.say)
                    return why
                train_cell(cell, display, quiet=False)
        except FolderHeldError as error:
            if error.folder != cell.run:
                raise
            note_end(self.out, self.run, f"left to {error.holder}")
            return str(error)
        collect_meanwhile(self.out, display.say)
        return "its result says how it ended"
