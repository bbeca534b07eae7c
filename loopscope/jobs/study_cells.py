"""The cells of a study: which runs its grid has, where each lies, and what of it is still to be done."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loopscope.config.nested import differences, merged
from loopscope.config.own_conditions import own_conditions, own_recipe
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.config.study_launch import Shard
from loopscope.jobs.folder import (
    DamagedResultError,
    as_resumed,
    check_folder,
    read_result,
    refuse_difference,
    written_config,
)
from loopscope.jobs.resumption import Resumption, as_begun, resolve, resumed
from loopscope.results.checkpoints import whole_checkpoint
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
from loopscope.results.manifest import sha256_of
from loopscope.training.checkpoint import RESUMED, verify


class Cell(NamedTuple):
    """A run of a study that is to be done.

    Attributes:
        config: with nothing left that is `auto`, where it is trained here.
        asked: as the study has it; what is `auto` is for whoever trains it to say.
        before: mark of its result when this process looked first, see `result_mark`.
    """

    run: Path
    config: RunConfig
    asked: RunConfig
    before: str | None

    @property
    def name(self) -> str:
        """Condition and seed, as people are told."""
        return f"{self.config.condition}, seed {self.config.training.seed}"


def plan(
    size: str,
    conditions: Sequence[str],
    seeds: Sequence[int],
    over: Mapping[str, Any] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    here: bool = True,
) -> list[RunConfig]:
    """The configs of a grid, seed by seed, so that a study cut short has every condition once.

    Args:
        here: whether they are trained on this machine, so that a device that it has not is refused.
    """
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
    if here:
        resolve(configs[0])  # a device that is not here is refused before anything is written
    return configs


def of_shard(grid: Sequence[RunConfig], shard: Shard | None) -> list[RunConfig]:
    """Return the configs of one part of a grid, see `Shard`; None is all of it."""
    if shard is None:
        return list(grid)
    seeds = list(dict.fromkeys(config.training.seed for config in grid))
    names = list(dict.fromkeys(config.condition for config in grid))
    return [
        config
        for config in grid
        if shard.takes(seeds.index(config.training.seed), names.index(config.condition), len(names))
    ]


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


def open_cell(out: Path, asked: RunConfig, here: bool = True) -> Cell | None:
    """The cell of a config that has to be run; None where it is done. Refuses a folder that cannot be gone on with.

    Args:
        here: whether it is trained on this machine.
    """
    run = folder_of(out, asked)
    before = result_mark(run)
    goes_on = resumed(asked, run) if here else Resumption(as_begun(asked, run))
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
    return Cell(run, config, asked, before)


def result_mark(run: str | Path) -> str | None:
    """Return what a run's result can be told from another by: None without one."""
    path = Path(run) / RESULT
    return sha256_of(path) if path.is_file() else None


def say_what_stays_short(out: Path, grid: Sequence[RunConfig]) -> None:
    """Warn of a study's runs that are not in the grid, where the study is made longer."""
    named = {folder_of(out, config) for config in grid}
    others = [path.parent for path in run_files(out, CONFIG) if path.parent not in (out, *named)]
    if others:
        warnings.warn(
            f"{out} is made longer; {len(others)} of its runs are not named and stay as long as they are (first: "
            f"{others[0].relative_to(out)}): name all conditions and seeds to make them longer too",
            stacklevel=3,
        )
