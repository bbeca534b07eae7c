"""`loopscope study`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loopscope.cli.arguments import with_config
from loopscope.cli.kept_settings import as_config, kept_study, refuse_unknown_modules
from loopscope.cli.train_print import print_means, print_next, print_results
from loopscope.cli.values import split_names
from loopscope.config.nested import read_yaml, shown
from loopscope.config.recipes import CONDITIONS
from loopscope.config.sizes import DEFAULT_SIZE
from loopscope.config.slurm_request import requests_in, slurm_request
from loopscope.config.study_launch import StudyLaunch, at_once_of, shard_of
from loopscope.results.layout import STUDY

FOUR = ("dense/rmsnorm", "dense/raw", "dense/rmsnorm+penalty", "terminal/rmsnorm")
"""What a study compares where nothing is named."""

MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Study:
    """Train conditions × seeds side by side in one folder, then collect results.json.

    Called again, it goes on where it stopped, with its folder's own settings; called several times at once, the
    processes share the runs. One that fails or diverges is a result: the exit status is 1 where none has completed.

    Settings of all its runs are flags by their section and name, and keys of a YAML file alike.

    Example:
        loopscope study --size laptop --conditions dense/rmsnorm,dense/raw --seeds 3 --out runs/x
        loopscope study --conditions terminal/raw --out runs/x --at-once auto
        loopscope report runs/x
        loopscope study --conditions a.yaml,b.yaml,dense/raw --out runs/three
        loopscope study --config variants.yaml --seeds 3 --out runs/variants
    """

    out: Path
    """Folder of the study."""
    conditions: str | None = None
    """Conditions listed below, the config's variants, YAML files with one of your own each; `all`; given again it adds.
    By default the folder's, the variants, or dense/rmsnorm, dense/raw, dense/rmsnorm+penalty, terminal/rmsnorm."""
    seeds: str | None = None
    """How many (3 means 0, 1, 2), or which (42,101,202). By default the folder's, or 1."""
    config: Path | None = None
    """YAML file: settings of every run, variants by name, slurm. Flags come on top, a variant's own last."""
    size: str = DEFAULT_SIZE
    """Named size, of those listed below."""
    at_once: str | None = None
    """Runs at the same time, each in a process with its share of cores and a GPU: how many, or auto."""
    shard: str | None = None
    """Only a part of the runs: 2/4 is the second of four."""
    launcher: Literal["local", "slurm"] | None = None
    """Every run is a job, of a cluster or of this machine, and outlives this call (extra `slurm`)."""
    slurm: str | None = None
    """What a job asks for: gpus=1,time=4:00:00 or any parameter of sbatch."""
    wait: bool = True
    """In the end, wait for runs that others train in this folder."""
    log: str | None = None
    """Trackers that have its curves too: tensorboard, trackio, wandb, with commas; or none."""
    dry_run: bool = False
    """Check everything, say what each run would make, print a cluster's script. Nothing is written."""
    quiet: bool = False
    """Print nothing but errors."""


def study(arguments: Sequence[str]) -> None:
    """`loopscope study`."""
    command, config, over = with_config(Study, "study", arguments)
    launch = _launch(command)
    kept = kept_study(command.out)
    mine = as_config(command.config, read_yaml(command.config)).get("variants") if command.config else None
    variants, names = mine, _names(command, mine, kept)
    if isinstance(kept.get("variants"), dict) and isinstance(mine, dict | None):
        used = {name: change for name, change in kept["variants"].items() if name in names}
        refuse_unknown_modules(used, command.out / STUDY)
        variants = {**used, **(mine or {})}
    seeds = kept["seeds"] if command.seeds is None and kept.get("seeds") else _seeds(command.seeds or "1")
    if kept and not command.quiet:
        said = f"size {config.size}, conditions {', '.join(names)}, seeds {', '.join(map(str, seeds))}"
        print(
            f"{command.out} goes on with its own {STUDY} ({said}) where nothing else is named",
            file=sys.stderr,
        )
    if command.dry_run:
        from loopscope.cli.planned_print import print_plans
        from loopscope.jobs import planned_study, study_script

        plans = planned_study(config.size, names, seeds, command.out, over, variants, launch)
        print_plans(plans)
        if script := study_script(command.out, plans, config.training.threads, launch):
            print(f"\nThe script that sbatch would be given:\n\n{script}")
        return
    from loopscope.jobs import run_study

    results = run_study(
        config.size, names, seeds, command.out, over, command.quiet, command.wait, variants, launch
    )
    print_results(results.runs, command.out, command.quiet)
    print_means(results.runs, command.quiet)
    print_next(results.runs, command.out, command.quiet)
    # Without a single result either all failed beyond recording, or other processes train them (--no-wait).
    done = any(run.status == "completed" for run in results.runs)
    if not done and (results.runs or command.wait):
        raise SystemExit(1)


def _launch(command: Study) -> StudyLaunch:
    """How the runs are trained: flags, and the config's section `slurm` below the flag of that name."""
    section = read_yaml(command.config).get("slurm") if command.config else None
    if command.slurm is not None and command.launcher != "slurm":
        raise ValueError(
            f"slurm is {shown(command.slurm)}, which is for jobs of a cluster; add --launcher slurm"
        )
    asked = slurm_request({} if section is None else section)
    if command.slurm is not None:
        named = requests_in(command.slurm)
        asked = slurm_request({**({} if section is None else section), **named})
    return StudyLaunch(
        at_once=None if command.at_once is None else at_once_of(command.at_once),
        shard=None if command.shard is None else shard_of(command.shard),
        launcher=command.launcher,
        slurm=asked,
    )


def _names(command: Study, variants: Any, kept: dict[str, Any]) -> list[str]:
    """The conditions that are named, or those of the folder's study, the config's variants, or four."""
    if command.conditions == "all":
        return list(CONDITIONS)
    if command.conditions is not None:
        return split_names(command.conditions)
    if isinstance(names := kept.get("conditions"), list) and names:
        refuse_unknown_modules(names, command.out / STUDY)
        more = [name for name in variants if name not in names] if isinstance(variants, dict) else []
        return [*map(str, names), *more]
    return list(variants) if isinstance(variants, dict) and variants else list(FOUR)


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in split_names(text)]
    except ValueError:
        numbers = []
    many = len(numbers) == 1 and "," not in text
    if many and 1 <= numbers[0] <= MOST_SEEDS:
        return list(range(numbers[0]))
    if many or not numbers or not all(0 <= number < 2**64 for number in numbers) or len(numbers) > MOST_SEEDS:
        raise ValueError(
            f"seeds is {shown(text)}; give how many (3; at most {MOST_SEEDS:,}) or which, from 0 up (42,101,202)"
        )
    return numbers
