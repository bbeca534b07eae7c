"""Jobs of this machine, through submitit's own executor for one: processes that outlive the call that started them.

The same jobs as a cluster's, so what works here works there. It has no queue: as many are started as there are places.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from loopscope.config.slurm_request import SlurmRequest
from loopscope.jobs.cell_job import CellJob
from loopscope.jobs.places import VISIBLE, Workplace
from loopscope.jobs.scheduler import AbstractScheduler
from loopscope.jobs.submitted import Submitted
from loopscope.optional_packages import require
from loopscope.results.layout import jobs_folder

LOCAL_POLL, LOCAL_PATIENCE = 1.0, 2.0
"""Seconds between looks, and until a job that is gone without a result counts as lost."""
A_YEAR = 365 * 24 * 60
"""Minutes that a job may take: nothing here ends it."""


class LocalJobs(AbstractScheduler):
    """Starts runs as processes of this machine."""

    name: ClassVar[str] = "local"

    def __init__(self, out: Path, request: SlurmRequest, places: Sequence[Workplace]) -> None:
        self.folder = jobs_folder(out).absolute()
        self.request, self.places = request, list(places)
        self.poll, self.patience = LOCAL_POLL, LOCAL_PATIENCE
        self._started: dict[str, Any] = {}

    def check(self) -> None:
        """Refuse a machine without submitit.

        Raises:
            ValueError: it is not installed; says how it is.
        """
        require("launcher 'local'", "submitit")

    def room(self, alive: Collection[Submitted]) -> int:
        """Return how many places are free."""
        return max(0, len(self.places) - len(alive))

    def submit(self, jobs: Sequence[CellJob], alive: Collection[Submitted]) -> list[Submitted]:
        """Start jobs, each in a place of its own."""
        from submitit import LocalExecutor
        from submitit.helpers import environment_variables

        taken = {job.place for job in alive}
        free = [place for place in self.places if place.number not in taken]
        found = []
        for job, place in zip(jobs, free, strict=False):
            executor = LocalExecutor(self.folder, max_num_timeout=self.request.requeues)
            gpus = _gpus_of(place)
            executor.update_parameters(timeout_min=A_YEAR, signal_delay_s=0)
            # Names of GPUs need not be numbers, which is all that `update_parameters` takes.
            executor.parameters.update(gpus_per_node=len(gpus), visible_gpus=gpus)
            with environment_variables(**place.environment()), _outliving():
                made = executor.submit(job)
            self._started[made.job_id] = made
            found.append(Submitted(self.name, made.job_id, socket.gethostname(), place.number))
        return found

    def alive(self, jobs: Collection[Submitted]) -> Mapping[str, tuple[str, str]]:
        """Return the jobs whose process is there. Those of another machine count as alive: who trains holds the run."""
        return {job.job: ("running", f"process {job.job}") for job in jobs if self._is_alive(job)}

    def _is_alive(self, job: Submitted) -> bool:
        if job.job in self._started:
            return not self._started[job.job].done()
        return is_job(job, self.folder)

    def why(self, job: Submitted) -> str:
        """Return that a process is gone: nobody kept how."""
        return "its process is gone"

    def end_command(self, jobs: Collection[Submitted]) -> str:
        """Return the command that ends processes."""
        return shlex.join(["kill", *(job.job for job in jobs)])

    def log(self, job: Submitted) -> Path:
        """Return where a job prints."""
        return self.folder / f"{job.job}_0_log.err"


def is_job(job: Submitted, folder: Path) -> bool:
    """Return whether a job's process is there, on this machine: one of this number whose words name the folder."""
    if job.host != socket.gethostname() or not job.job.isdecimal():
        return False
    asked = ["ps", "-o", "stat=,command=", "-p", job.job]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return str(folder.absolute()) in said and not said.startswith("Z")


def _gpus_of(place: Workplace) -> tuple[str, ...]:
    """GPUs that a process sees: its place's, or all that this one does."""
    if place.gpu is not None:
        return (place.gpu,)
    if VISIBLE in os.environ:
        return tuple(filter(None, os.environ[VISIBLE].split(",")))
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))


@contextmanager
def _outliving() -> Iterator[None]:
    """Processes that are started inside leave Ctrl-C and the end of a terminal to the one that starts them.

    They have none of its three files either: whoever reads what it prints would wait for all of them.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere, kept = os.open(os.devnull, os.O_RDWR), [os.dup(file) for file in range(3)]
    for file in range(3):
        os.dup2(nowhere, file)
    try:
        yield
    finally:
        for file, own in enumerate(kept):
            os.dup2(own, file)
            os.close(own)
        os.close(nowhere)
        for number, handler in before.items():
            signal.signal(number, handler)
