"""Which job of a cluster has which run of a study: one file in the study's folder, written under the study's lock.

A call that comes later, also from another machine, sees which runs have a job and does not submit them again.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from loopscope.jobs.study_results import BRIEFLY
from loopscope.results.layout import submitted_file, write_text
from loopscope.results.lock import hold


@dataclass(frozen=True)
class Submitted:
    """The job of a run.

    Attributes:
        job: its number, as the launcher has it.
        host: where it was submitted.
        place: number of its share of the machine; 0 on a cluster.
        ended: how, where it ended without a result and without a fault: it was told to stop.
    """

    launcher: str
    job: str
    host: str
    place: int = 0
    ended: str | None = None


def read_submitted(out: str | Path) -> dict[str, Submitted]:
    """Return the jobs of a study by run, as `run_key` names it. A file that cannot be read has none."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads(submitted_file(out).read_text(encoding="utf-8"))
        jobs = {str(run): Submitted(**entry) for run, entry in found.items()}
        return {
            run: job
            for run, job in jobs.items()
            if all(isinstance(word, str) for word in (job.job, job.host))
        }
    return {}


@contextmanager
def changing_submitted(out: str | Path) -> Iterator[dict[str, Submitted]]:
    """Give the jobs of a study to be changed, while no other process does."""
    with hold(out, wait=BRIEFLY):
        jobs = read_submitted(out)
        before = dict(jobs)
        try:
            yield jobs
        finally:
            if jobs != before:
                submitted_file(out).parent.mkdir(parents=True, exist_ok=True)
                kept = {run: asdict(job) for run, job in sorted(jobs.items())}
                write_text(submitted_file(out), json.dumps(kept, indent=1))


def note_end(out: str | Path, run: str | Path, how: str | None) -> None:
    """Keep how a run's job ended without a result; None: it has begun, or goes back to the queue."""
    with changing_submitted(out) as jobs:
        key = run_key(out, run)
        if key in jobs:
            jobs[key] = replace(jobs[key], ended=how)


def run_key(out: str | Path, run: str | Path) -> str:
    """Return a run's folder as seen from its study's: dense_raw/seed-0."""
    return Path(run).absolute().relative_to(Path(out).absolute()).as_posix()


def jobs_of(kept: Mapping[str, Submitted], launcher: str, keys: Iterable[str]) -> dict[str, Submitted]:
    """Return the jobs that one launcher has of some runs, and that have not ended."""
    wanted = set(keys)
    return {
        key: job
        for key, job in kept.items()
        if key in wanted and job.launcher == launcher and job.ended is None
    }
