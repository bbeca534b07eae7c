"""What `train` and `study` would make, with all that they check before work starts. Nothing is written."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.config.run_config import RunConfig
from loopscope.config.study_launch import StudyLaunch
from loopscope.data.source import opened_before
from loopscope.jobs.folder import check_folder, read_result
from loopscope.jobs.places import places
from loopscope.jobs.resumption import Resumption, as_begun, resumed
from loopscope.jobs.slurm_jobs import SlurmJobs
from loopscope.jobs.study_cells import folder_of, of_shard, plan
from loopscope.jobs.study_folder import check_claim
from loopscope.jobs.train import check_vocabulary, windows
from loopscope.plan.memory import least_training_bytes
from loopscope.plan.parameters import count_parameters
from loopscope.plan.static_audit import audit_config
from loopscope.plan.training_flops import training_cost
from loopscope.results import StaticAudit
from loopscope.results.checkpoints import whole_checkpoint
from loopscope.results.layout import step_in_name
from loopscope.results.lock import FolderHeldError, present_holder
from loopscope.training.checkpoint import RESUMED
from loopscope.training.config import TrainingConfig
from loopscope.training.loggers import check_loggers
from loopscope.training.loop import total_steps

OF_A_SAVE = 3
"""Numbers that a checkpoint keeps of each parameter: itself and two moments."""


@dataclass(frozen=True)
class PlannedRun:
    """A run as it would be.

    Attributes:
        config: with nothing left that is `auto`.
        parameters: of the model.
        memory: bytes that a step takes at the very least: weights, gradients, moments, one batch.
        checkpoint: bytes of each.
        kept: checkpoints that stay in the end; one more is there while it is written.
        disk_free: bytes on the disk of its folder; None where that is not known.
        steps: optimizer steps; None where epochs say, and the text is not tokenized yet.
        tokens: that it trains on in all; None as for steps.
        windows: that there are to train on; None where the text is not tokenized yet.
        flops: of training; None as for steps.
        done: steps that its newest checkpoint has.
        finished: whether there is nothing to do.
        verdict: by its config alone.
        notes: what a run would say before it begins.
    """

    folder: Path
    config: RunConfig
    parameters: int
    memory: int
    checkpoint: int
    kept: int
    disk_free: int | None
    steps: int | None
    tokens: int | None
    windows: int | None
    flops: float | None
    done: int
    finished: bool
    verdict: StaticAudit
    notes: tuple[str, ...]


def planned_run(config: RunConfig, run: str | Path, resume: bool = False, here: bool = True) -> PlannedRun:
    """Check what `execute` checks before it begins, and return what it would make.

    A text that was not tokenized before is not: its files are looked for, and what hangs on its length is left open.

    Args:
        here: whether it is trained on this machine; else what is `auto` stays so.

    Raises:
        ValueError: what `execute` would refuse: config, data, device, memory or folder, a logger that is not installed.
    """
    run = Path(run)
    check_loggers(config.training.log)
    goes_on = resumed(config, run) if here else Resumption(as_begun(config, run))
    config, training, model = goes_on.config, goes_on.config.training, goes_on.config.model
    check_folder(config, run, resume)
    if holder := present_holder(run):
        raise FolderHeldError(run, holder)
    _check_weights(config)
    data, there = opened_before(config.data), None
    if data is not None:
        check_vocabulary(config, data)
        there = len(windows(config, data).train)
    steps = training.steps if training.epochs is None else None
    if there is not None:
        steps = total_steps(training, there)
    width = config.data.task.width(model.sequence) if config.data.corpus == "task" else model.sequence
    tokens = None if steps is None else steps * training.batch * width
    parameters = sum(count_parameters(model).values())
    checkpoint, result = whole_checkpoint(run, RESUMED), read_result(run)
    done = 0 if checkpoint is None else step_in_name(checkpoint) or 0
    return PlannedRun(
        folder=run,
        config=config,
        parameters=parameters,
        memory=least_training_bytes(config),
        checkpoint=parameters * 4 * OF_A_SAVE,
        kept=_kept(training, steps),
        disk_free=_free(run),
        steps=steps,
        tokens=tokens,
        windows=there,
        flops=None if tokens is None else tokens * float(training_cost(config)),
        done=done,
        finished=result is not None and result.status != "failed" and steps is not None and done >= steps,
        verdict=audit_config(config),
        notes=goes_on.notes,
    )


def planned_study(
    size: str,
    conditions: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    over: Mapping[str, Any] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    launch: StudyLaunch | None = None,
) -> list[PlannedRun]:
    """Check what `run_study` checks before it begins, and return what its runs would be. Arguments are its.

    Raises:
        ValueError: what `run_study` would refuse.
    """
    out, launch = Path(out), launch or StudyLaunch()
    here = launch.launcher != "slurm"
    grid = plan(size, conditions, seeds, over, variants, here)
    if here:
        places(launch.at_once, grid[0])
    check_claim(out, size, over or {})
    found = []
    for config in of_shard(grid, launch.shard):
        run = folder_of(out, config)
        found.append(planned_run(config, run, run.exists(), here))
    return found


def study_script(
    out: str | Path, plans: Sequence[PlannedRun], threads: int | None, launch: StudyLaunch
) -> str | None:
    """Return the script that a cluster would be given for a study's runs; None where it would be given none.

    Args:
        threads: `training.threads` as it was asked for.

    Raises:
        ValueError: submitit is not installed.
    """
    left = sum(not plan.finished for plan in plans)
    if launch.launcher != "slurm" or not left:
        return None
    most = launch.at_once if isinstance(launch.at_once, int) else None
    return SlurmJobs(Path(out), launch.slurm, most, threads).script(left)


def _check_weights(config: RunConfig) -> None:
    source = config.training.weights
    if source is not None and not Path(source).expanduser().exists():
        raise ValueError(f"training.weights is {source!r}, which is not there; give a run or model folder")


def _kept(training: TrainingConfig, steps: int | None) -> int:
    """Checkpoints that a run keeps in the end: as many as it may, and no more than it saves."""
    most = training.keep_last + training.keep_best
    if steps is None or training.checkpoint_every is None:
        return most if training.checkpoint_every else 1
    return min(most, math.ceil(steps / training.checkpoint_every))


def _free(run: Path) -> int | None:
    """Bytes free on the disk of a folder, or of the nearest one above that is there."""
    for path in (run.absolute(), *run.absolute().parents):
        if path.exists():
            return shutil.disk_usage(path).free
    return None
