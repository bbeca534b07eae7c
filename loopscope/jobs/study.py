"""A study: conditions × seeds of one size in one folder. Calling it again goes on where it stopped.

The folder belongs to one base config; conditions and seeds may be added and its runs made longer, another size
or another setting is refused. A run that diverges or fails is a record; the rest goes on. Several processes may work on
one folder: each run is held by the one that trains it, the others go on to the next, and in the end wait for what is
still held, to take it over where its process is killed. So may a call's own processes (`side_by_side`), and the jobs of
a cluster (`launched`).
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopscope.config.own_conditions import own_conditions
from loopscope.config.run_config import RunConfig
from loopscope.config.study_launch import StudyLaunch
from loopscope.data.source import open_data
from loopscope.jobs.launched import train_as_jobs
from loopscope.jobs.local_jobs import LocalJobs
from loopscope.jobs.places import Workplace, places
from loopscope.jobs.side_by_side import train_side_by_side
from loopscope.jobs.slurm_jobs import SlurmJobs
from loopscope.jobs.study_cells import Cell, of_shard, open_cell, plan, result_mark, say_what_stays_short
from loopscope.jobs.study_folder import claim, keep_named
from loopscope.jobs.study_results import collect, collect_meanwhile, keep_damaged
from loopscope.jobs.train import check_vocabulary, execute, failed
from loopscope.jobs.train import windows as run_windows
from loopscope.results import StudyResults
from loopscope.results.faults import in_words
from loopscope.results.lock import FolderHeldError, hold
from loopscope.training.loggers import check_loggers
from loopscope.training.progress import ProgressDisplay

POLL = 1.0
"""Seconds between looks at runs that other processes hold."""


def run_study(
    size: str,
    conditions: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    over: Mapping[str, Any] | None = None,
    quiet: bool = False,
    wait: bool = True,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    launch: StudyLaunch | None = None,
) -> StudyResults:
    """Train every condition with every seed, and collect all results after each run.

    Args:
        conditions: names of conditions and variants, and YAML files with a condition of one's own.
        over: nested values put on top of every run (the same for all of them); a variant's own come on top of these.
        wait: in the end, for runs that other processes train; False leaves them to those.
        variants: what each changes in a condition, by name; those that `conditions` names are trained.
        launch: which of the runs, how many at the same time, and by whom; all of them, one by one, in this process,
            where it is None.

    Raises:
        ValueError: a name or value that does not fit, or a folder of another study. Raised before any
            training starts.
    """
    out, launch = Path(out), launch or StudyLaunch()
    here = launch.launcher != "slurm"
    grid = plan(size, conditions, seeds, over, variants, here)
    check_loggers(grid[0].training.log)
    room = (
        places("auto" if launch.launcher and launch.at_once is None else launch.at_once, grid[0])
        if here
        else []
    )
    scheduler = scheduler_of(launch, out, grid[0], room)
    base = claim(out, size, over or {})
    mine = of_shard(grid, launch.shard)
    todo = [cell for config in mine if (cell := open_cell(out, config, here)) is not None]
    if not keep_named(
        out, base, own_conditions(conditions, variants), seeds
    ):  # made longer, and all that it has can be
        say_what_stays_short(out, grid)
    if todo:
        opened = {}
        for config in mine:
            key = config.data.model_dump_json()
            if key not in opened:
                opened[key] = open_data(config.data, progress=not quiet)
            check_vocabulary(config, opened[key])
            run_windows(config, opened[key])
        if scheduler is not None:
            train_as_jobs(todo, scheduler, out, launch.slurm.gpus, quiet, wait)
        elif len(room) > 1:
            train_side_by_side(todo, room, out, quiet, wait)
        else:
            train_here(todo, out, quiet, wait)
    return collect(out)


def scheduler_of(
    launch: StudyLaunch, out: Path, config: RunConfig, room: Sequence[Workplace] = ()
) -> LocalJobs | SlurmJobs | None:
    """Return who runs a study's jobs; None where this call trains them itself.

    Args:
        config: of one of the runs.
        room: places of this machine.

    Raises:
        ValueError: submitit or a program of Slurm is missing; says which.
    """
    if launch.launcher is None:
        return None
    if launch.launcher == "local":
        found: LocalJobs | SlurmJobs = LocalJobs(out, launch.slurm, room)
    else:
        most = launch.at_once if isinstance(launch.at_once, int) else None
        found = SlurmJobs(out, launch.slurm, most, config.training.threads)
    found.check()
    return found


def train_here(todo: list[Cell], out: Path, quiet: bool, wait: bool) -> None:
    """Train cells one after the other in this process. Those that others hold come last, or are left to them."""
    display = ProgressDisplay("study", len(todo), 0, quiet)
    number, waiting = 0, False
    while todo:
        held: list[tuple[Cell, FolderHeldError]] = []
        for cell in todo:
            try:
                with hold(cell.run):
                    if result_mark(cell.run) != cell.before:
                        continue  # another process has done it since
                    number += 1
                    display.say(f"[{number}/{display.steps}] {cell.name}")
                    train_cell(cell, display, quiet)
                collect_meanwhile(out, display.say)
            except FolderHeldError as error:
                if error.folder != cell.run:
                    raise
                held.append((cell, error))
            except OSError as error:  # its folder cannot even be held
                display.say(f"{cell.name} failed: {in_words(error)}")
        if held and not waiting:
            whose = "; ".join(f"{cell.name}: {error.holder}" for cell, error in held)
            does = "waiting for" if wait else "left to their processes:"
            display.say(f"{does} {len(held)} of {display.steps} that others train ({whose})")
            waiting = True
        todo = [cell for cell, _ in held] if wait else []
        if todo:
            time.sleep(POLL)


def train_cell(cell: Cell, display: ProgressDisplay, quiet: bool) -> None:
    """Train one cell that is held. An error, whatever it is, is the result of its run, and the grid goes on."""
    began = time.monotonic()
    try:
        keep_damaged(cell.run)
        execute(cell.config, cell.run, resume=True, quiet=quiet)
    except Exception as error:
        try:
            display.say(f"failed: {failed(cell.config, cell.run, error, began).failure}")
        except OSError as full:  # the record of it cannot be written either
            display.say(f"failed: {error}; no record of it could be kept: {in_words(full)}")
