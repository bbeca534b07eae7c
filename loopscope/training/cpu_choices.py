"""What was found of this CPU by trials, kept for the next run: one small file in the cache folder of the user.

A run that is long enough to gain by them takes what is kept for its CPU, version of torch, threads and number format,
or has it found first (`cpu_trials`, most of a minute). It writes what it took into its folder: whoever goes on
with the run, here or elsewhere, takes the same, because sizes decide the order of sums. A run that is too short takes
the sizes that the code names, always, so that it does not depend on what ran before.

`LOOPSCOPE_CPU_TRIALS=off` has neither: nothing is timed, read or written, and the code's own sizes hold. Several
processes that share a run take those too.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from loopscope.data.config import DataConfig
from loopscope.data.token_folder import cache_folder
from loopscope.ops.cpu_sizes import CpuSizes
from loopscope.ops.narrow_products import cpu_multiplies
from loopscope.results.layout import CPU_SIZES, write_text
from loopscope.training.cpu_model import cpu_name

TRIALS_SETTING = "LOOPSCOPE_CPU_TRIALS"
KEPT_CHOICES = "cpu-choices.json"
WORTH_TRYING = 5e14
"""FLOPs of a run from which trials pay: they take most of a minute, and such a run a quarter of an hour."""
BF16_PAYS = 1.2
"""Times fp32's speed from which products in bf16 are worth their rounding."""
TRIAL_PATIENCE = 120.0
"""Seconds to wait for another process that has begun the same trials."""


@dataclass(frozen=True)
class CpuChoices:
    """What holds for a CPU; None where the code's own number does.

    Attributes:
        logits, squares, narrow: `ops.cpu_sizes.CpuSizes`.
        fuses: whether a compiled chain of passes is faster than PyTorch's own.
        peak: FLOP/s of its products in this number format, by which `training.compile: auto` knows a long run.
        over_fp32: those over the products' in fp32, by which `training.precision: auto` knows whether bf16 pays.
        found: the day.
    """

    logits: int | None = None
    squares: int | None = None
    narrow: int | None = None
    fuses: bool | None = None
    peak: float | None = None
    over_fp32: float | None = None
    found: str | None = None

    @property
    def sizes(self) -> CpuSizes:
        """What operations read."""
        return CpuSizes(self.logits, self.squares, self.narrow)


def choices_for(
    run: str | Path,
    device: torch.device,
    precision: str,
    flops: float | None,
    begun: bool,
    find: Callable[[str], CpuChoices],
) -> CpuChoices:
    """Return what a run takes: what its folder says, or what is kept or found for a long one; and write it there.

    Args:
        flops: of the whole run; None: not counted.
        begun: it has a checkpoint: what it took then is taken again, and nothing where its folder names nothing.
        find: tries what there is to try (`cpu_trials.found_by_trials`).
    """
    path = Path(run) / CPU_SIZES
    if (there := _read(path)) is not None:
        if (taken := _decoded(there)) is None:
            warnings.warn(
                f"{path} cannot be read: the run goes on with the sizes that the code names, and bits may differ from "
                "those of a run that never stopped",
                stacklevel=3,
            )
        return taken or CpuChoices()
    if begun or not trials_allowed() or device.type != "cpu" or flops is None or flops < WORTH_TRYING:
        return CpuChoices()
    if precision == "bf16" and not cpu_multiplies(torch.bfloat16):  # each trial takes minutes
        return CpuChoices()
    taken = kept_or_found(precision, find)
    Path(run).mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(taken)) + "\n")
    return taken


def trials_allowed() -> bool:
    """Return whether the environment lets trials run.

    Raises:
        ValueError: it says neither `on` nor `off`.
    """
    said = os.environ.get(TRIALS_SETTING, "on")
    if said not in ("on", "off"):
        raise ValueError(
            f"{TRIALS_SETTING} is {said!r}; it is 'on' (the default: a long run finds which sizes are fastest here) "
            "or 'off'"
        )
    return said == "on"


def kept_or_found(precision: str, find: Callable[[str], CpuChoices]) -> CpuChoices:
    """Return what is kept for this CPU, or find it; of processes that begin at once one does, and the others wait."""
    key = choices_key(precision)
    if kept := kept_choices().get(key):
        return kept
    with _held():
        if kept := kept_choices().get(key):  # another has found it meanwhile
            return kept
        found = find(precision)
        if found.found is None:  # the trials failed
            return found
        table = {name: asdict(one) for name, one in kept_choices().items()}
        with suppress(OSError):  # no room, or not ours to write: found again the next time
            choices_file().parent.mkdir(parents=True, exist_ok=True)
            write_text(choices_file(), json.dumps({**table, key: asdict(found)}, indent=1) + "\n")
    return found


def choices_key(precision: str) -> str:
    """Return what trials hold for: CPU, version of torch, threads, number format."""
    threads = f"{torch.get_num_threads()} threads"
    return " | ".join((cpu_name() or "unknown CPU", f"torch {torch.__version__}", threads, precision))


def choices_file() -> Path:
    """Return where they are kept."""
    return cache_folder(DataConfig()) / KEPT_CHOICES


def kept_choices() -> dict[str, CpuChoices]:
    """Return all that are kept, by key; nothing of a file that is missing or damaged, which is then written anew."""
    table = _read(choices_file())
    if not isinstance(table, dict):
        return {}
    return {key: found for key, entry in table.items() if (found := _decoded(entry)) is not None}


def bf16_pays() -> bool:
    """Return whether bf16 products are faster than fp32's here by enough, as far as is known."""
    if not trials_allowed():
        return True
    gain = kept_choices().get(choices_key("bf16"), CpuChoices()).over_fp32
    return gain is None or gain >= BF16_PAYS


def trials_said() -> tuple[str, ...]:
    """Return what is kept for this CPU, version of torch and threads, a line for each number format; or why nothing."""
    if not trials_allowed():
        return (f"off ({TRIALS_SETTING}): the sizes that the code names hold",)
    kept = {kind: kept_choices().get(choices_key(kind)) for kind in ("fp32", "bf16")}
    lines = [f"{kind}: {_said(one)}" for kind, one in kept.items() if one]
    return (*lines, f"kept in {choices_file()}") if lines else ("none yet: the first long run finds sizes",)


def _said(choices: CpuChoices) -> str:
    sizes = {
        "logits a chunk": choices.logits,
        "bytes of squares": choices.squares,
        "channels in fp32": choices.narrow,
    }
    named = [f"{name} {size:,}" for name, size in sizes.items() if size is not None]
    chains = {None: "not tried", True: "faster compiled", False: "not faster compiled"}[choices.fuses]
    gain = "" if choices.over_fp32 is None else f"; products {choices.over_fp32:.2g} times fp32's"
    return f"{', '.join(named) or 'sizes as the code has them'}; chains {chains}{gain} ({choices.found})"


def today() -> str:
    """Return the date, as results have it."""
    return datetime.now(UTC).date().isoformat()


def _read(path: Path) -> Any:
    """A file's JSON; None where it is not there, and an empty word where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return ""


_FITS: dict[str, Callable[[Any], bool]] = {
    "logits": lambda value: type(value) is int and value > 0,
    "squares": lambda value: type(value) is int and value > 0,
    "narrow": lambda value: type(value) is int and value >= 0,
    "fuses": lambda value: type(value) is bool,
    "peak": lambda value: isinstance(value, float) and 0 < value < float("inf"),
    "over_fp32": lambda value: isinstance(value, float) and 0 < value < float("inf"),
    "found": lambda value: isinstance(value, str),
}


def _decoded(entry: Any) -> CpuChoices | None:
    """What a table has for one key; None where it is not what was written there."""
    names = {field.name for field in fields(CpuChoices)}
    if not isinstance(entry, dict) or entry.keys() != names:
        return None
    if not all(value is None or _FITS[name](value) for name, value in entry.items()):
        return None
    return CpuChoices(**entry)


@contextmanager
def _held() -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = choices_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire(timeout=TRIAL_PATIENCE, poll_interval=0.1)
    except (Timeout, OSError, NotImplementedError):  # found without: the file is written whole or not at all
        yield
        return
    try:
        yield
    finally:
        lock.release()
