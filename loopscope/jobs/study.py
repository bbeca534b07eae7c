"""A study: conditions × seeds of one size in one folder. Calling it again goes on where it stopped.

The folder belongs to one base config; more conditions and more seeds may be added, another size or another setting is
refused. A run that diverges or fails is a record; the rest goes on. Several processes may work on one folder: each run
is held by the one that trains it, the others go on to the next, and in the end wait for what is still held, to take it
over where its process is killed.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from loopscope.config.nested import merged, read_yaml
from loopscope.config.own_conditions import own_conditions, own_recipe
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.data.source import open_data
from loopscope.jobs.folder import as_resumed, check_folder, refuse_difference, written_config
from loopscope.jobs.resumption import resolve, resumed
from loopscope.jobs.train import check_vocabulary, execute, failed, finished
from loopscope.jobs.train import windows as run_windows
from loopscope.results import RunResult, StudyResults, load_results, provenance, to_json
from loopscope.results.layout import (
    CONFIG,
    RESULT,
    RESULTS,
    STUDY,
    is_study,
    newest_checkpoint,
    run_files,
    run_folder,
    visible,
    write_text,
)
from loopscope.results.lock import FolderHeldError, hold
from loopscope.training.checkpoint import verify
from loopscope.training.progress import ProgressDisplay

BRIEFLY = 300.0
"""Seconds to wait for a process that only writes the study's own files."""
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
    _claim(out, size, over or {})
    todo = [cell for config in grid if (cell := _check(out, config)) is not None]
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
                collect(out)
            except FolderHeldError as error:
                if error.folder != cell.run:
                    raise
                held.append((cell, error))
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


def collect(out: str | Path) -> StudyResults:
    """Read every run's result under a study folder and write them as one file.

    One process at a time: whoever collects last has seen every result that was there before.
    """
    with hold(out, wait=BRIEFLY):
        runs = [_read(path) for path in run_files(out, RESULT)]
        order = {condition: place for place, condition in enumerate(_conditions(runs))}
        runs.sort(key=lambda run: (order[run.condition], run.seed))
        results = StudyResults(runs=tuple(runs), provenance=provenance())
        write_text(Path(out) / RESULTS, to_json(results))
    return results


def _check(out: Path, config: RunConfig) -> Cell | None:
    """The cell of a config that has to be run; None where it is done. Refuses a folder that cannot be gone on with."""
    run = run_folder(out, config.condition, config.training.seed)
    before = _result_text(run)
    goes_on = resumed(config, run)
    config = goes_on.config
    if finished(run) is not None:
        now = config.model_dump(mode="json")
        refuse_difference(as_resumed(written_config(run / CONFIG), now), now, run)
        return None
    check_folder(config, run, resume=run.exists())
    for note in goes_on.notes:
        warnings.warn(note, stacklevel=3)
    if run.exists():
        try:
            with hold(run):
                if checkpoint := newest_checkpoint(run):
                    verify(checkpoint)
        except FolderHeldError:  # checked when it is taken over, if ever
            pass
    return Cell(run, config, before)


def _train(cell: Cell, display: ProgressDisplay, quiet: bool) -> None:
    """Train one cell. An error, whatever it is, is the result of its run, and the grid goes on."""
    began = time.monotonic()
    try:
        execute(cell.config, cell.run, resume=True, quiet=quiet)
    except Exception as error:
        display.say(f"failed: {failed(cell.config, cell.run, error, began).failure}")


def _name(config: RunConfig) -> str:
    return f"{config.condition}, seed {config.training.seed}"


def _result_text(run: Path) -> str | None:
    path = run / RESULT
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _read(path: Path) -> RunResult:
    return load_results(path).runs[0]


def _conditions(runs: Sequence[RunResult]) -> list[str]:
    """Conditions in the order in which they were first run."""
    earliest: dict[str, str] = {}
    for run in runs:
        date = run.provenance.date if run.provenance else ""
        earliest[run.condition] = min(earliest.get(run.condition, date), date)
    return sorted(earliest, key=lambda condition: (earliest[condition], condition))


def _claim(out: Path, size: str, over: Mapping[str, Any]) -> None:
    """Make `out` this study's folder, or refuse it."""
    base = yaml.safe_load(yaml.safe_dump({"size": size, "over": _plain(over)}))
    if not is_study(out):
        if out.exists() and (not out.is_dir() or visible(out)) and not is_study(out):
            raise ValueError(f"{out} is not empty and holds no study; name a new folder, nothing was touched")
        with hold(out, wait=BRIEFLY):
            if not is_study(out):
                write_text(out / STUDY, yaml.safe_dump(base, sort_keys=False))
    refuse_difference(read_yaml(out / STUDY), base, out)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) if isinstance(value, Mapping) else value for key, value in values.items()}
