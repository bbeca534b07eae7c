"""A study: conditions × seeds of one size in one folder. Calling it again goes on where it stopped.

The folder belongs to one base config; conditions and seeds may be added and its runs made longer, another size
or another setting is refused. A run that diverges or fails is a record; the rest goes on. Several processes may work on
one folder: each run is held by the one that trains it, the others go on to the next, and in the end wait for what is
still held, to take it over where its process is killed.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loopscope.config.nested import differences, merged
from loopscope.config.own_conditions import own_conditions, own_recipe
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.data.source import open_data
from loopscope.jobs.folder import (
    DamagedResultError,
    as_resumed,
    check_folder,
    read_result,
    refuse_difference,
    written_config,
)
from loopscope.jobs.resumption import resolve, resumed
from loopscope.jobs.study_folder import claim, keep_named
from loopscope.jobs.study_results import collect, collect_meanwhile, keep_damaged
from loopscope.jobs.train import check_vocabulary, execute, failed
from loopscope.jobs.train import windows as run_windows
from loopscope.results import StudyResults
from loopscope.results.checkpoints import whole_checkpoint
from loopscope.results.faults import in_words
from loopscope.results.layout import (
    CONFIG,
    DAMAGED_RESULT,
    RESULT,
    condition_folder,
    older_condition_folder,
    run_files,
    run_folder,
)
from loopscope.results.lock import FolderHeldError, hold
from loopscope.training.checkpoint import RESUMED, verify
from loopscope.training.loggers import check_loggers
from loopscope.training.progress import ProgressDisplay

POLL = 1.0
"""Seconds between looks at runs that other processes hold."""


class Cell(NamedTuple):
    """A run of a study that is to be done, and the text of its result when this process looked first."""

    run: Path
    config: RunConfig
    before: str | None


def run_study(
    size: str,
    conditions: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    over: Mapping[str, Any] | None = None,
    quiet: bool = False,
    wait: bool = True,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> StudyResults:
    """Train every condition with every seed, and collect all results after each run.

    Args:
        conditions: names of conditions and variants, and YAML files with a condition of one's own.
        over: nested values put on top of every run (the same for all of them); a variant's own come on top of these.
        wait: in the end, for runs that other processes train; False leaves them to those.
        variants: what each changes in a condition, by name; those that `conditions` names are trained.

    Raises:
        ValueError: a name or value that does not fit, or a folder of another study. Raised before any
            training starts.
    """
    out = Path(out)
    grid = plan(size, conditions, seeds, over, variants)
    check_loggers(grid[0].training.log)
    base = claim(out, size, over or {})
    todo = [cell for config in grid if (cell := _check(out, config)) is not None]
    if not keep_named(
        out, base, own_conditions(conditions, variants), seeds
    ):  # made longer, and all that it has can be
        _say_what_stays_short(out, grid)
    if todo:
        opened = {}
        for config in grid:
            key = config.data.model_dump_json()
            if key not in opened:
                opened[key] = open_data(config.data, progress=not quiet)
            check_vocabulary(config, opened[key])
            run_windows(config, opened[key])
    display = ProgressDisplay("study", len(todo), 0, quiet)
    number, waiting = 0, False
    while todo:
        held: list[tuple[Cell, FolderHeldError]] = []
        for cell in todo:
            try:
                with hold(cell.run):
                    if _result_text(cell.run) != cell.before:
                        continue  # another process has done it since
                    number += 1
                    display.say(f"[{number}/{display.steps}] {_name(cell.config)}")
                    _train(cell, display, quiet)
                collect_meanwhile(out, display)
            except FolderHeldError as error:
                if error.folder != cell.run:
                    raise
                held.append((cell, error))
            except OSError as error:  # its folder cannot even be held
                display.say(f"{_name(cell.config)} failed: {in_words(error)}")
        if held and not waiting:
            whose = "; ".join(f"{_name(cell.config)}: {error.holder}" for cell, error in held)
            does = "waiting for" if wait else "left to their processes:"
            display.say(f"{does} {len(held)} of {display.steps} that others train ({whose})")
            waiting = True
        todo = [cell for cell, _ in held] if wait else []
        if todo:
            time.sleep(POLL)
    return collect(out)


def plan(
    size: str,
    conditions: Sequence[str],
    seeds: Sequence[int],
    over: Mapping[str, Any] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[RunConfig]:
    """The configs of a grid, seed by seed, so that a study cut short has every condition once."""
    if not conditions or len(set(conditions)) != len(conditions):
        raise ValueError(f"conditions is {list(conditions)}; name at least one, each once")
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds is {list(seeds)}; name at least one, each once")
    own = own_conditions(conditions, variants)
    for name in own:
        condition_folder("", name)  # refuses what no folder can be called
    configs = []
    for seed in seeds:
        of_seed = {"training": {"seed": seed}}
        for name, change in own.items():
            if change is None:
                configs.append(recipe(size, name, merged(over or {}, of_seed)))
            else:
                configs.append(own_recipe(size, name, merged(change, of_seed), over))
    resolve(configs[0])  # a device that is not here is refused before anything is written
    return configs


def folder_of(out: str | Path, config: RunConfig) -> Path:
    """Where a run of a study lies: `run_folder`, or the folder that an earlier version gave its condition."""
    seed = config.training.seed
    run = run_folder(out, config.condition, seed)
    older = older_condition_folder(out, config.condition) / run.name
    if older != run and not run.exists() and (older / CONFIG).is_file():
        there = written_config(older / CONFIG)
        if there.get("condition") == config.condition:
            return older
    return run


def _check(out: Path, config: RunConfig) -> Cell | None:
    """The cell of a config that has to be run; None where it is done. Refuses a folder that cannot be gone on with."""
    run = folder_of(out, config)
    before = _result_text(run)
    goes_on = resumed(config, run)
    config = goes_on.config
    try:
        result = read_result(run)
    except DamagedResultError as error:
        warnings.warn(
            f"{error}. That is done now, and what was there is kept as {DAMAGED_RESULT}", stacklevel=3
        )
        result = None
    if result is not None and result.status != "failed":
        there, now = written_config(run / CONFIG), config.model_dump(mode="json")
        refuse_difference(as_resumed(there, now, longer=True), now, run)
        if not any(differences(as_resumed(there, now), now)):
            return None  # else it is done, and made longer
    check_folder(config, run, resume=run.exists())
    for note in goes_on.notes:
        warnings.warn(note, stacklevel=3)
    if run.exists():
        try:
            with hold(run):
                if checkpoint := whole_checkpoint(run, RESUMED):
                    verify(checkpoint)
        except FolderHeldError:  # checked when it is taken over, if ever
            pass
    return Cell(run, config, before)


def _train(cell: Cell, display: ProgressDisplay, quiet: bool) -> None:
    """Train one cell. An error, whatever it is, is the result of its run, and the grid goes on."""
    began = time.monotonic()
    try:
        keep_damaged(cell.run)
        execute(cell.config, cell.run, resume=True, quiet=quiet)
    except Exception as error:
        try:
            display.say(f"failed: {failed(cell.config, cell.run, error, began).failure}")
        except OSError as full:  # the record of it cannot be written either
            display.say(f"failed: {error}; no record of it could be kept: {in_words(full)}")


def _name(config: RunConfig) -> str:
    return f"{config.condition}, seed {config.training.seed}"


def _result_text(run: Path) -> str | None:
    path = run / RESULT
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _say_what_stays_short(out: Path, grid: Sequence[RunConfig]) -> None:
    named = {folder_of(out, config) for config in grid}
    others = [path.parent for path in run_files(out, CONFIG) if path.parent not in (out, *named)]
    if others:
        warnings.warn(
            f"{out} is made longer; {len(others)} of its runs are not named and stay as long as they are (first: "
            f"{others[0].relative_to(out)}): name all conditions and seeds to make them longer too",
            stacklevel=3,
        )
