"""Jobs of a Slurm cluster, through submitit: one per run, as one array."""

import getpass
import shlex
import shutil
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

from loopscope.config.slurm_request import SlurmRequest
from loopscope.jobs.cell_job import CellJob
from loopscope.jobs.scheduler import AbstractScheduler, SchedulerSilentError, output_of
from loopscope.jobs.submitted import Submitted
from loopscope.optional_packages import require
from loopscope.results.layout import jobs_folder

PROGRAMS = ("sbatch", "srun", "squeue")
"""What has to be there where jobs are submitted."""
SLURM_POLL, SLURM_PATIENCE = 10.0, 30.0
"""Seconds between looks, and until a job that is gone without a result counts as lost."""
TO_SAVE = 120
"""Seconds before its time is up in which a job finishes its step and saves."""
QUEUED = (
    "PENDING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "CONFIGURING",
)
OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")


class SlurmJobs(AbstractScheduler):
    """Submits runs to Slurm."""

    name: ClassVar[str] = "slurm"

    def __init__(self, out: Path, request: SlurmRequest, at_once: int | None, threads: int | None) -> None:
        """
        Args:
            at_once: jobs at the same time, at most; None: as many as the cluster gives.
            threads: `training.threads` of the runs, which are the cores of a job that names none.
        """
        self.folder = jobs_folder(out)
        self.request, self.at_once, self.threads = request, at_once, threads
        self.poll, self.patience = SLURM_POLL, SLURM_PATIENCE

    def check(self) -> None:
        """Refuse a machine from which nothing can be submitted.

        Raises:
            ValueError: submitit or a program of Slurm is missing; says which.
        """
        require("launcher 'slurm'", "submitit")
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise ValueError(
                f"launcher 'slurm' needs {missing[0]}, which is not on this machine's PATH; call it on a login node of "
                "the cluster (--dry-run prints the script anywhere)"
            )

    def room(self, alive: Collection[Submitted]) -> int:
        """Return how many more jobs it takes: a cluster queues all."""
        return sys.maxsize

    def submit(self, jobs: Sequence[CellJob], alive: Collection[Submitted]) -> list[Submitted]:
        """Submit jobs as one array."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError

        executor = SlurmExecutor(self.folder, max_num_timeout=self.request.requeues)
        try:
            executor.update_parameters(**self.parameters(len(jobs)))
            with redirect_stderr(StringIO()):  # submitit prints what sbatch says, and then raises it
                made = executor.submit_array(jobs)
        except (UncompletedJobError, FailedSubmissionError) as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"sbatch refused the jobs ({said}); change what they ask for (--slurm)"
            ) from None
        return [Submitted(self.name, job.job_id, socket.gethostname()) for job in made]

    def alive(self, jobs: Collection[Submitted]) -> Mapping[str, tuple[str, str]]:
        """Return what squeue says of jobs."""
        wanted = {job.job for job in jobs}
        if not wanted:
            return {}
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%N|%r"]
        found = {}
        for line in output_of(command).splitlines():
            number, state, node, reason = (part.strip() for part in (*line.split("|"), "", "", "")[:4])
            if number in wanted and state not in OVER:
                queued = state in QUEUED
                where = reason if queued and reason not in ("", "None") else node
                found[number] = ("queued" if queued else "running", f"job {number} {where}".strip())
        return found

    def why(self, job: Submitted) -> str:
        """Return the state that sacct gives a job, where there is accounting."""
        try:
            lines = output_of(["sacct", "-X", "-n", "-P", "-o", "State", "-j", job.job]).splitlines()
        except SchedulerSilentError:
            lines = []
        state = lines[-1].split()[0] if lines and lines[-1].strip() else ""
        return (
            ""
            if state.startswith("CANCELLED")
            else f"Slurm says {state}"
            if state
            else "Slurm has it no more"
        )

    def end_command(self, jobs: Collection[Submitted]) -> str:
        """Return the command that cancels jobs."""
        return shlex.join(["scancel", *dict.fromkeys(job.job.partition("_")[0] for job in jobs)])

    def log(self, job: Submitted) -> Path:
        """Return where a job prints what goes wrong."""
        return self.folder / f"{job.job}_0_log.err"

    def parameters(self, jobs: int) -> dict[str, Any]:
        """Return what submitit is told of a study's jobs."""
        asked = self.request
        cpus = asked.cpus or self.threads
        found: dict[str, Any] = {
            "job_name": "loopscope",
            "time": asked.minutes,
            "mem": asked.memory,
            "cpus_per_task": cpus,
            "gpus_per_node": asked.gpus or None,
            "partition": asked.partition,
            "account": asked.account,
            "setup": list(asked.setup) or None,
            "signal_delay_s": TO_SAVE,
            "array_parallelism": min(self.at_once or jobs, jobs),
            # srun takes no cores from sbatch since Slurm 22.05.
            "srun_args": None if cpus is None else [f"--cpus-per-task={cpus}"],
            "additional_parameters": {"requeue": True, **asked.sbatch},
        }
        return {name: value for name, value in found.items() if value is not None}

    def script(self, jobs: int) -> str:
        """Return the script that sbatch would be given for so many jobs. Nothing is written, and no Slurm needed.

        Raises:
            ValueError: submitit is not installed.
        """
        require("launcher 'slurm'", "submitit")
        from submitit.slurm.slurm import _make_sbatch_string

        folder = self.folder.expanduser().absolute()
        command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
        count = jobs if jobs > 1 else None  # a single one is no array
        return _make_sbatch_string(command=command, folder=folder, map_count=count, **self.parameters(jobs))
