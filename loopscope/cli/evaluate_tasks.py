"""`loopscope evaluate tasks`: benchmarks at several depths. Heavy imports are inside the functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.evaluate_options import OnMachine, machine_arguments, print_json, refuse_errors
from loopscope.cli.values import check_counts, depths_of, split_names

if TYPE_CHECKING:
    from loopscope.results import TaskEvaluation


@dataclass(frozen=True)
class EvaluateTasks(OnMachine):
    """Benchmarks of lm-evaluation-harness at several depths: all of them from one unroll, where likelihoods are scored.

    Text is written once per depth. The harness makes requests and metrics (pip install 'loopscope[eval]'); lm-eval ls
    tasks lists what it has, which a network brings. Tasks of your own, from local files: --include-path. Keeps
    tasks.json in each run's folder; other tasks' scores stay there.

    Example:
        loopscope evaluate tasks runs/raw --tasks colours --include-path questions
        loopscope evaluate tasks runs/raw --tasks colours,endings --include-path questions --loops 1,2,4,8 --batch 8
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Runs, studies (all of their runs), model folders, last.pt files, folders of transformers, names on the hub."""
    tasks: str = ""
    """Names of tasks, groups and tags, separated by commas, also with *; or YAML files."""
    loops: str | None = None
    """Depths, such as 1,2,4,8; powers of two up to twice the trained depth by default."""
    include_path: Path | None = None
    """A folder with tasks of your own in YAML, as lm-evaluation-harness reads them."""
    fewshot: int | None = None
    """Examples before every question; each task's own number by default."""
    limit: int | None = None
    """Documents of each task, the first ones; all by default."""
    length: int | None = None
    """Tokens that a request may have: its beginning is cut. By default what the model was made for."""
    prefix: str | None = None
    """A text of one token that stands before a text with nothing before it; BOS or EOS by default."""
    keep_in: Path | None = None
    """Keep tasks.json in this folder instead of the model's. Then `loopscope report` it."""


def evaluate_tasks(arguments: Sequence[str]) -> None:
    """`loopscope evaluate tasks`."""
    command = parse(EvaluateTasks, "evaluate tasks", arguments)
    if not command.paths:
        raise ValueError("give a path to evaluate: a run, a study, a model folder, a last.pt")
    check_counts(command, "limit", "length")
    loops = None if command.loops is None else depths_of(command.loops)
    machine = machine_arguments(command)
    from loopscope.cli.evaluate_tasks_print import CountedRequests, print_tasks
    from loopscope.jobs import TaskSettings, check_one, measure_tasks, open_tasks, ordered_runs

    settings = TaskSettings(
        tasks=tuple(split_names(command.tasks)),
        loops=loops,
        fewshot=command.fewshot,
        limit=command.limit,
        include_path=command.include_path,
        length=command.length,
        prefix=command.prefix,
    )
    runs = [run for given in command.paths for run in ordered_runs(given)]
    check_one(runs, command.keep_in)
    suite = open_tasks(settings)
    evaluations: list[TaskEvaluation] = []
    errors: list[ValueError] = []

    for run in runs:
        try:
            with CountedRequests(str(run)) as counted:
                evaluation = measure_tasks(
                    run, suite, settings, keep_in=command.keep_in, progress=counted.show, **machine
                )
        except ValueError as error:  # the others are not lost for it
            errors.append(error)
            continue
        evaluations.append(evaluation)
        if not command.json:
            print_tasks(evaluation)
    if command.json:
        print_json(evaluations)
    refuse_errors(errors, len(runs))
