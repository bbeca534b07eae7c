"""A study: conditions × seeds of one size in one folder. Calling it again goes on where it stopped.

The folder belongs to one base config (`study.yaml`); more conditions and more seeds may be added, another
size or another setting is refused. A run that diverges or fails is a record; the rest goes on.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loopscope.config.nested import merged, read_yaml
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.data.source import open_data
from loopscope.jobs.folder import check_folder, refuse_difference, written_config
from loopscope.jobs.train import check_vocabulary, execute, failed, finished, resolve
from loopscope.jobs.train import windows as run_windows
from loopscope.results import RunResult, StudyResults, load_results, provenance, to_json
from loopscope.results.layout import RESULTS, STUDY, write_text
from loopscope.training.checkpoint import newest_checkpoint, verify
from loopscope.training.progress import ProgressDisplay


def run_study(
    size: str,
    conditions: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    over: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> StudyResults:
    """Train every condition with every seed, and collect `results.json` after each run.

    Args:
        over: nested values put on top of every run (the same for all of them).

    Raises:
        ValueError: a name or value that does not fit, or a folder of another study. Raised before any
            training starts.
    """
    grid = plan(size, conditions, seeds, over)
    _claim(out, size, over or {})
    todo: list[tuple[Path, RunConfig]] = []
    for config in grid:
        run = run_folder(out, config)
        if finished(run) is None:
            check_folder(config, run, resume=run.exists())
            if checkpoint := newest_checkpoint(run):
                verify(checkpoint)
            todo.append((run, config))
        else:
            refuse_difference(written_config(run / "config.yaml"), config.model_dump(mode="json"), run)
    if todo:
        data = open_data(grid[0].data, progress=not quiet)
        for config in grid:
            check_vocabulary(config, data)
            run_windows(config, data)
    display = ProgressDisplay("study", len(todo), 0, quiet)
    for number, (run, config) in enumerate(todo, start=1):
        display.say(f"[{number}/{len(todo)}] {config.condition}, seed {config.training.seed}")
        began = time.monotonic()
        try:
            execute(config, run, resume=run.exists(), quiet=quiet)
        except Exception as error:  # whatever it is, it is this run's result, and the grid goes on
            display.say(f"failed: {failed(config, run, error, began).failure}")
        collect(out)
    return collect(out)


def plan(
    size: str, conditions: Sequence[str], seeds: Sequence[int], over: Mapping[str, Any] | None = None
) -> list[RunConfig]:
    """The configs of a grid, seed by seed, so that a study cut short has every condition once."""
    if not conditions or len(set(conditions)) != len(conditions):
        raise ValueError(f"conditions is {list(conditions)}; name at least one, each once")
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds is {list(seeds)}; name at least one, each once")
    return [
        resolve(recipe(size, condition, merged(over or {}, {"training": {"seed": seed}})))
        for seed in seeds
        for condition in conditions
    ]


def run_folder(out: Path, config: RunConfig) -> Path:
    """Where a run of a study lives."""
    return condition_folder(out, config.condition) / f"seed-{config.training.seed}"


def condition_folder(out: Path, condition: str) -> Path:
    """Where a condition's runs live: its name, with what file systems mind replaced."""
    return out / "".join(sign if sign.isalnum() or sign in "-+." else "_" for sign in condition)


def collect(out: Path) -> StudyResults:
    """Read every run's result under a study folder and write `results.json`."""
    runs = [_read(path) for path in sorted(out.glob("*/seed-*/result.json"))]
    order = {condition: place for place, condition in enumerate(_conditions(out, runs))}
    runs.sort(key=lambda run: (order[run.condition], run.seed))
    results = StudyResults(runs=tuple(runs), provenance=provenance())
    write_text(out / RESULTS, to_json(results))
    return results


def _read(path: Path) -> RunResult:
    return load_results(path).runs[0]


def _conditions(out: Path, runs: Sequence[RunResult]) -> list[str]:
    """Conditions in the order in which they were first run."""
    earliest: dict[str, str] = {}
    for run in runs:
        date = run.provenance.date if run.provenance else ""
        earliest[run.condition] = min(earliest.get(run.condition, date), date)
    return sorted(earliest, key=lambda condition: (earliest[condition], condition))


def _claim(out: Path, size: str, over: Mapping[str, Any]) -> None:
    """Make `out` this study's folder, or refuse it."""
    base = yaml.safe_load(yaml.safe_dump({"size": size, "over": _plain(over)}))
    path = out / STUDY
    if path.is_file():
        refuse_difference(read_yaml(path), base, out)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty and holds no study; name a new folder, nothing was touched")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(base, sort_keys=False))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) if isinstance(value, Mapping) else value for key, value in values.items()}
