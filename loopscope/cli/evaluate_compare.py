"""`loopscope evaluate compare`: runs and studies side by side. Heavy imports are inside the functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.evaluate_options import OnText, job_arguments
from loopscope.cli.values import DEEPEST, check_counts, split_names


@dataclass(frozen=True)
class Compare(OnText):
    """Compare conditions at every depth, paired by seed and by window, and say what the data separates.

    Runs without a depth evaluation on this text are evaluated first. Baselines named unlooped and unlooped-deep
    become a compute-matched table. Of one study, comparison.json is kept in its folder. Several runs and studies
    compare where their validation text is the same, also with different tokenizers: in bits per byte. With a model
    folder among them (transformers' too) all read one text: --data, else the first run's validation text, else stdlib.

    Example:
        loopscope evaluate compare runs/mine
        loopscope evaluate compare runs/mine --conditions dense/raw,dense/rmsnorm --loops 8
        loopscope evaluate compare runs/mine --time --threads 2
        loopscope evaluate compare runs/words runs/bytes --keep-in runs/compared
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = (Path("."),)
    """A study's folder, or several of studies, runs and models."""
    conditions: str | None = None
    """Names, separated by commas; all by default."""
    loops: int | None = None
    """The deepest loop; twice each condition's trained depth by default."""
    time: bool = False
    """Measure seconds per token at every depth, in this process, alternately."""
    keep_in: Path | None = None
    """Keep comparison.json in this folder, of several paths too. Then `loopscope report` it."""


def evaluate_compare(arguments: Sequence[str]) -> None:
    """`loopscope evaluate compare`."""
    command = parse(Compare, "evaluate compare", arguments)
    check_counts(command, "loops", most=DEEPEST)
    text = job_arguments(command)
    from loopscope.cli.evaluate_compare_print import print_comparison
    from loopscope.jobs import compare_study
    from loopscope.results import to_json

    conditions = None if command.conditions is None else split_names(command.conditions)
    compared = compare_study(
        command.paths, conditions, command.loops, time=command.time, keep_in=command.keep_in, **text
    )
    if command.json:
        print(to_json(compared))
    else:
        print_comparison(compared, kept=len(command.paths) == 1 or command.keep_in is not None)
