"""Where a run computes: decided once for what is `auto`, and taken from its folder when it goes on, here or elsewhere.

Threads and precision decide the bits, so a run that goes on has those that it began with, unless others are named.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loopscope.config.run_config import RunConfig
from loopscope.jobs.folder import written_config
from loopscope.jobs.machine import memory_of
from loopscope.machine_limits import usable_cores
from loopscope.plan.memory import check_memory
from loopscope.results.layout import CONFIG
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.ranks import ALONE, Ranks
from loopscope.training.hardware import resolve_device, resolve_precision

_STARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
BITS = "bits may differ from those of a run that never moved"


@dataclass(frozen=True)
class Resumption:
    """A config with nothing left that is `auto`, and what there is to say of how it came about."""

    config: RunConfig
    notes: tuple[str, ...] = ()


def resolve(config: RunConfig, ranks: Ranks = ALONE) -> RunConfig:
    """Replace what `auto` stands for on this machine, so that a resumed run cannot decide otherwise.

    Args:
        ranks: processes that share the run, and the cores of this machine.

    Raises:
        ValueError: a device that is not there, or one that cannot hold the run.
    """
    device = resolve_device(config.training.device)
    if ranks.alone:
        check_memory(config, memory_of(device), "this machine" if device.type == "cpu" else device.type)
    return _with(
        config,
        device=str(device),
        precision=resolve_precision(config.training.precision, device),
        threads=config.training.threads or threads_each(ranks),
    )


def started_again(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or SLURM says that it has started this job before: the same command then goes on."""
    counts = (environment.get(name, "") for name in _STARTS)
    return any(count.isdecimal() and int(count) > 0 for count in counts)


def threads_each(ranks: Ranks) -> int:
    """Return the CPU threads of a process: torch's choice, or its share of the cores where others are beside it."""
    if ranks.alone:
        return torch.get_num_threads()
    return max(1, int(usable_cores()) // ranks.local_world)


def resumed(config: RunConfig, run: str | Path, ranks: Ranks = ALONE) -> Resumption:
    """Replace what is `auto` by what a run's folder says, where it was begun; else by what this machine has.

    Args:
        ranks: processes that share the run now. Threads are then divided anew: there may have been fewer of them.

    Raises:
        ValueError: a device that was named and is not there, or a folder whose config cannot be read.
    """
    if not (Path(run) / CONFIG).is_file():
        return Resumption(resolve(config, ranks))
    kept = _kept(written_config(Path(run) / CONFIG))
    if not ranks.alone:
        kept.pop("threads", None)
    asked, notes = config.training, list[str]()
    taken = {name: value for name, value in kept.items() if _is_open(config, name)}
    if not _is_here(str(taken.get("device", "cpu"))):
        gone = taken.pop("device")
        notes.append(
            f"{run} began on {gone}, which is not here: it goes on on {resolve_device('auto')}, and {BITS}"
        )
    now, here = resolve(_with(config, **taken), ranks), resolve(config, ranks)
    other = [name for name in taken if getattr(here.training, name) != taken[name]]
    if other:
        began, would = (
            " and ".join(f"{name} {getattr(side.training, name)}" for name in other) for side in (now, here)
        )
        notes.append(f"{run} goes on with {began}, as it began (this machine would take {would}); {BITS}")
    named = [
        name
        for name in ("device", "threads")
        if name in kept and name not in taken and getattr(asked, name) not in ("auto", None, kept[name])
    ]
    if named:
        said = " and ".join(f"{name} {getattr(asked, name)} ({kept[name]} until now)" for name in named)
        notes.append(f"{run} goes on with {said}, and {BITS}")
    return Resumption(now, tuple(notes))


def as_begun(config: RunConfig, run: str | Path) -> RunConfig:
    """Replace what is `auto` by what a run's folder says, where it was begun, and ask nothing of this machine.

    For a run that is trained on another one.

    Raises:
        ValueError: a folder whose config cannot be read.
    """
    if not (Path(run) / CONFIG).is_file():
        return config
    kept = _kept(written_config(Path(run) / CONFIG))
    return _with(config, **{name: value for name, value in kept.items() if _is_open(config, name)})


def _is_open(config: RunConfig, name: str) -> bool:
    return getattr(config.training, name) in ("auto", None)


def earlier_end(run: str | Path) -> TrainingConfig | None:
    """How long a run was to be until now: its folder's training settings. None where it was not begun."""
    path = Path(run) / CONFIG
    if not path.is_file():
        return None
    return TrainingConfig.model_validate(written_config(path).get("training") or {})


def _kept(there: dict[str, Any]) -> dict[str, Any]:
    """Device, precision and threads of a folder's config, as far as they can be what they should be."""
    training = there.get("training")
    values = training if isinstance(training, dict) else {}
    fits: dict[str, Callable[[Any], bool]] = {
        "device": lambda value: isinstance(value, str) and value != "auto",
        "precision": lambda value: value in ("fp32", "bf16"),
        "threads": lambda value: type(value) is int and value >= 1,
    }
    return {name: values[name] for name, fit in fits.items() if fit(values.get(name))}


def _is_here(device: str) -> bool:
    try:
        resolve_device(device)
    except ValueError:
        return False
    return True


def _with(config: RunConfig, **values: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=values)})
