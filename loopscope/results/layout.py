"""What lies where in a run's and in a study's folder. The one owner of these names, and of writing whole files.

    STUDY/                        a study: conditions × seeds of one size
      study.yaml                  what every run of it shares
      results.json                all results, collected after each run
      comparison.json             its conditions side by side
      report.html, figures/       its page
      jobs/                       what processes and jobs printed that train its runs, and which job has which run
      CONDITION/seed-N/           a run
    RUN/
      config.yaml                 resolved, written before anything else
      metrics.jsonl               one record a line, while it trains
      result.json                 how it ended
      cpu.json                    sizes that were found for its CPU, in a long run
      audit.json, evaluation.json what was measured of it later
      tasks.json                  benchmarks at several depths
      trackers.json               which trackers have it, and as what; tensorboard/ and wandb/: what those write
      checkpoints/step-NNNNNNNN/  a model folder with the optimizer's state beside; state.json has hashes of all of it;
                                  of a model in shards (FSDP2) both in a file per process, shard-NNNNN-…
      checkpoints/damaged-step-…  one that could not be read when the run went on from the one before
    MODEL/                        what `load` reads
      config.yaml, model.safetensors, tokenizer.json, and their hashes: manifest.json
      retrofit.json, train.yaml   of a model that was looped after training: where it comes from, and how it goes on

A process that writes a run holds `.lock` in its folder, and says who it is in `.holder.json` (`results.lock`).
Standard library only. Paths are `str` or `Path`.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loopscope.results.faults import concerning, shortened

CONFIG = "config.yaml"
RESULT = "result.json"
DAMAGED_RESULT = "result.damaged.json"
"""A result that could not be read, which made room for a new one."""
METRICS = "metrics.jsonl"
AUDIT = "audit.json"
EVALUATION = "evaluation.json"
"""Of a run: what every depth is worth, and its exits."""
PREVIOUS_EVALUATION = "evaluation.previous.json"
"""An evaluation of another text or another model, which made room for a new one."""
PREVIOUS_AUDIT = "audit.previous.json"
"""An audit of an earlier checkpoint, set aside when the run went on."""
COMPARISON = "comparison.json"
"""Of a study: how its conditions compare."""
TRACKERS = "trackers.json"
TENSORBOARD = "tensorboard"
"""Event files of a run, and below it those of its loops."""
TASKS = "tasks.json"
PREVIOUS_TASKS = "tasks.previous.json"
"""Benchmarks of another model (an earlier checkpoint, say), which made room for those of this one."""
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
RETROFIT = "retrofit.json"
TRAIN = "train.yaml"
"""A run's config that begins with the model beside it."""
STUDY = "study.yaml"
RESULTS = "results.json"
REPORT = "report.html"
CARD = "README.md"
"""Of an exported model: what the hub shows."""
FIGURES = "figures"
JOBS = "jobs"
"""Of a study whose runs others train: what they print, and what a cluster was told."""
SUBMITTED = "submitted.json"
"""Which job of a cluster has which run of a study."""
CPU_SIZES = "cpu.json"
"""Sizes at which a run splits a CPU's work, where trials found them: it goes on with the same."""
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
HOLDER = ".holder.json"

_SEED, _STEP, _WRITING, _DAMAGED = "seed-", "step-", ".writing-", "damaged-"
_RUNS = f"*/{_SEED}*"
_CHECKPOINT = re.compile(rf"{_STEP}(\d{{8,}})", re.ASCII)
_SHARD = re.compile(r"shard-(\d{5,})-model-0000([12])-of-00002\.safetensors", re.ASCII)
"""A process' share, as torch.distributed.checkpoint calls it: the first of two is of the weights."""
SHARD_OF = {WEIGHTS: 1, OPTIMIZER: 2}
"""Which of the two files of a process stands for which one."""
_PART = r"[a-z0-9+-](?:[a-z0-9+._-]*[a-z0-9+-])?"
_PLAIN = re.compile(rf"{_PART}([/:]{_PART})*")
"""Conditions whose name is a folder's too: file systems keep these apart, whatever case and accents are to them."""
_SIGNS = str.maketrans({"_": "__", "/": "_", ":": "="})
_LONGEST = 100
"""Signs of a condition in its folder's name: file systems take 255 bytes, and runs are copied to stricter ones."""
_TAKEN = {FIGURES, CHECKPOINTS, JOBS, RESULT, RESULTS, STUDY, COMPARISON, REPORT}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give the path to write a file under, and put it in the place of `path` when the block ends.

    Whoever reads `path` sees the old file or the whole new one, also after a kill or a power cut. The name is this
    process's own, so that two that write the same file do not write into each other's.
    """
    path = Path(path)
    writing = path.with_name(f"{_WRITING}{os.getpid()}-{path.name}")
    with concerning(path, writing):
        try:
            writing.unlink(missing_ok=True)  # a link of that name would be written through
            yield writing
            with writing.open("rb+") as file:  # not every system syncs what is open to read only
                os.fsync(file.fileno())
            os.replace(writing, path)
        finally:
            with suppress(OSError):  # the first error is the one to hear of
                writing.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as writing:
        writing.write_text(text, encoding="utf-8")


def sync(path: str | Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def visible(folder: str | Path) -> list[str]:
    """Names in a folder without those that begin with a dot: locks, files being written. Empty where it is none."""
    with suppress(OSError):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []


def condition_folder(study: str | Path, condition: str) -> Path:
    """Folder of a condition's runs in a study: another one for every name, inside the study, short enough to exist.

    A plain name is its folder's too: `dense_raw` for `dense/raw`, `a__b` for `a_b`, `unlooped=dense_raw` for
    `unlooped:dense/raw`. Of any other the folder has what every file system keeps apart, and a hash of the whole.

    Raises:
        ValueError: a name that means a folder around this one, or that nothing can be called.
    """
    if not condition.strip(". /\\") or not condition.isprintable():
        raise ValueError(
            f"condition is {shortened(repr(condition))}, and no folder can be called so; name it with letters, digits "
            "and - + . /"
        )
    plain = condition.translate(_SIGNS)
    if len(plain) > _LONGEST or plain in _TAKEN or not _PLAIN.fullmatch(condition):
        kept = re.sub(r"[^A-Za-z0-9+.-]", "_", condition)[:_LONGEST].strip(".")
        plain = f"{kept}~{hashlib.sha256(condition.encode()).hexdigest()[:12]}"
    return Path(study) / plain


def older_condition_folder(study: str | Path, condition: str) -> Path:
    """Where 0.1 put a condition's runs: `a_b` and `a/b` shared one folder."""
    return Path(study) / "".join(sign if sign.isalnum() or sign in "-+." else "_" for sign in condition)


def run_folder(study: str | Path, condition: str, seed: int) -> Path:
    """Folder of one run of a study."""
    return condition_folder(study, condition) / f"{_SEED}{seed}"


def jobs_folder(study: str | Path) -> Path:
    """Where a study keeps what the jobs and processes that train its runs print."""
    return Path(study) / JOBS


def worker_log(study: str | Path, number: int) -> Path:
    """What a process printed that trained runs of a study beside others."""
    return jobs_folder(study) / f"worker-{number}.log"


def submitted_file(study: str | Path) -> Path:
    """Where a study keeps which job of a cluster has which of its runs."""
    return jobs_folder(study) / SUBMITTED


def seed_of(run: str | Path) -> int | None:
    """The seed in a run folder's name; None where the name has none."""
    number = Path(run).name.removeprefix(_SEED)
    return int(number) if Path(run).name.startswith(_SEED) and number.isdecimal() else None


def is_study(path: str | Path) -> bool:
    """Whether a path is a study's folder."""
    return (Path(path) / STUDY).is_file()


def is_tracked(path: str | Path) -> bool:
    """Whether a tracker has a run, or one of a study's runs."""
    return bool(run_files(path, TRACKERS))


def run_files(folder: str | Path, name: str) -> list[Path]:
    """Files of one name in a run's or a study's folder and in those of the study's runs, first seeds first."""
    runs = sorted(Path(folder).glob(_RUNS), key=lambda run: (_order(run), run))
    return [path for path in (Path(folder) / name, *(run / name for run in runs)) if path.is_file()]


def trained_runs(path: str | Path) -> list[Path]:
    """The path itself, or every run of a study that has a checkpoint, by condition and seed.

    Raises:
        ValueError: a study without a single checkpoint.
    """
    path = Path(path)
    if not is_study(path):
        return [path]
    runs = [run for run in path.glob(_RUNS) if newest_checkpoint(run)]
    if not runs:
        raise ValueError(f"{path} is a study without a single checkpoint; train it first, or name a run")
    return sorted(runs, key=lambda run: (run.parent.name, _order(run)))


def first_runs(path: str | Path) -> list[Path]:
    """The path itself, or the run with the lowest seed of every condition of a study.

    Raises:
        ValueError: a study without a single checkpoint.
    """
    firsts: dict[Path, Path] = {}
    for run in trained_runs(path):
        firsts.setdefault(run.parent, run)
    return list(firsts.values())


def checkpoint_folder(run: str | Path, step: int) -> Path:
    """Where a run keeps the checkpoint of one step."""
    return Path(run) / CHECKPOINTS / f"{_STEP}{step:08d}"


def unfinished(folder: str | Path) -> Path:
    """Where a folder is filled before it gets its name: beside it, and not taken for one."""
    folder = Path(folder)
    return folder.with_name(f"{_WRITING}{folder.name}")


def step_in_name(checkpoint: str | Path) -> int | None:
    """The step in a checkpoint folder's name; None where it has not the name of one."""
    found = _CHECKPOINT.fullmatch(Path(checkpoint).name)
    return int(found[1]) if found else None


def checkpoint_folders(run: str | Path) -> list[Path]:
    """The complete checkpoints of a run folder, newest first."""
    found = [path for path in (Path(run) / CHECKPOINTS).glob(f"{_STEP}*") if step_in_name(path) is not None]
    return sorted(
        (path for path in found if path.is_dir()), key=lambda path: step_in_name(path) or 0, reverse=True
    )


def newest_checkpoint(run: str | Path) -> Path | None:
    """The newest complete checkpoint of a run folder, or None. `results.checkpoints` asks whether it can be read."""
    return next(iter(checkpoint_folders(run)), None)


def remove_other_checkpoints(kept: str | Path, *also: str | Path) -> None:
    """Remove the checkpoints beside some that stay, and what saves cut short left: nothing else, and through no link.

    Args:
        also: further checkpoints of the same run that stay.
    """
    stay = {Path(path) for path in (kept, *also)}
    for path in Path(kept).parent.iterdir():
        own = step_in_name(path.name.removeprefix(_WRITING)) is not None
        if own and path not in stay and not path.is_symlink():
            gone = path if path.name.startswith(_WRITING) else unfinished(path)
            if gone != path:  # killed half way, it must not lie there under a checkpoint's name
                shutil.rmtree(gone, ignore_errors=True)
                os.replace(path, gone)
            shutil.rmtree(gone, ignore_errors=True)


def set_aside_damaged(checkpoint: str | Path) -> Path:
    """Give a checkpoint that cannot be read another name, so that its step can be saved again; return its new place."""
    checkpoint = Path(checkpoint)
    number, place = 1, checkpoint.with_name(f"{_DAMAGED}{checkpoint.name}")
    while place.exists():
        number += 1
        place = checkpoint.with_name(f"{_DAMAGED}{number}-{checkpoint.name}")
    os.replace(checkpoint, place)
    return place


def shard_paths(folder: str | Path, kind: str) -> list[Path]:
    """The files in which a folder has the shares of its weights or its optimizer's state, by process."""
    return [path for path in sorted(Path(folder).glob("shard-*")) if shard_kind(path.name) == kind]


def shard_kind(name: str) -> str | None:
    """The file that a share stands for; None for the name of no share."""
    found = _SHARD.fullmatch(name)
    return None if found is None else next(kind for kind, place in SHARD_OF.items() if place == int(found[2]))


def shard_rank(name: str) -> int:
    """The process whose share a file has, from 0. Only of names that `shard_kind` knows."""
    found = _SHARD.fullmatch(name)
    assert found is not None, f"{name} is no shard"
    return int(found[1]) - 1


def has_weights(folder: str | Path) -> bool:
    """Whether a folder holds weights, in one file or in shards."""
    return (Path(folder) / WEIGHTS).is_file() or bool(shard_paths(folder, WEIGHTS))


def is_model_folder(path: str | Path) -> bool:
    """Whether a folder holds a model of Loopscope's own, whether or not it is a run's."""
    return (Path(path) / CONFIG).is_file() and has_weights(path)


def without_model(path: str | Path) -> str:
    """Say that a path holds no model: what was looked for, and which runs or models the folder holds."""
    path = Path(path)
    below = path.glob(f"*/**/{CHECKPOINTS}/{_STEP}*")
    runs = sorted({str(found.parent.parent.relative_to(path)) for found in below})
    models = sorted(found.parent.name for found in path.glob("*/config.json"))
    hint = "".join(
        f" It holds {what}; name one of them: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}."
        for what, names in (("runs", runs), ("folders of models", models))
        if names
    )
    return (
        f"{path} holds no model: neither {CONFIG} with {WEIGHTS}, nor {CHECKPOINTS}/{_STEP}*, nor a config.json as "
        f"transformers writes it.{hint}"
    )


def _order(run: Path) -> tuple[int, str]:
    """Seeds by number, and names that have none last."""
    seed = seed_of(run)
    return (10**9, run.name) if seed is None else (seed, "")
