"""What a study's runs came to, in one file: every result that can be read and lies in its own run's folder."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from loopscope.jobs.folder import DamagedResultError, read_result
from loopscope.jobs.study_order import ordered_conditions
from loopscope.results import RunResult, StudyResults, provenance, to_json
from loopscope.results.faults import in_words
from loopscope.results.layout import DAMAGED_RESULT, RESULT, RESULTS, run_files, write_text
from loopscope.results.lock import hold

BRIEFLY = 300.0
"""Seconds to wait for a process that only writes the study's own files."""


def collect(out: str | Path) -> StudyResults:
    """Read every run's result under a study folder and write them as one file.

    One process at a time: whoever collects last has seen every result that was there before. One that is damaged, or
    another run's, is left out with a warning that names it.
    """
    with hold(out, wait=BRIEFLY):
        runs = [result for path in run_files(out, RESULT) if (result := _read(path.parent)) is not None]
        order = {condition: place for place, condition in enumerate(ordered_conditions(out, _began(runs)))}
        runs.sort(key=lambda run: (order[run.condition], run.seed))
        results = StudyResults(runs=tuple(runs), provenance=provenance())
        write_text(Path(out) / RESULTS, to_json(results))
    return results


def collect_meanwhile(out: str | Path, say: Callable[[str], None]) -> None:
    """Collect between runs: a disk that is full now may have room in the end, and the grid goes on."""
    try:
        collect(out)
    except OSError as error:
        say(f"the results so far could not be collected: {in_words(error)}")


def keep_damaged(run: str | Path) -> None:
    """Move a result that cannot be read out of the way of a new one."""
    try:
        read_result(run)
    except DamagedResultError:
        os.replace(Path(run) / RESULT, Path(run) / DAMAGED_RESULT)


def _read(run: Path) -> RunResult | None:
    """A run's result; None, with a warning, where it cannot be read or is another run's."""
    try:
        return read_result(run)
    except ValueError as error:
        warnings.warn(f"left out of the study's results: {error}", stacklevel=2)
        return None


def _began(runs: Sequence[RunResult]) -> dict[str, str]:
    """When each condition was first run."""
    earliest: dict[str, str] = {}
    for run in runs:
        date = run.provenance.date if run.provenance else ""
        earliest[run.condition] = min(earliest.get(run.condition, date), date)
    return earliest
