"""`loopscope evaluate depth`: what every depth of a model is worth. Heavy imports are inside the functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.evaluate_options import OnText, job_arguments, measured, print_json, refuse_errors
from loopscope.cli.values import DEEPEST, check_counts

if TYPE_CHECKING:
    from loopscope.jobs.evaluation_series import IfKnown
    from loopscope.results import ModelEvaluation


@dataclass(frozen=True)
class Depth(OnText):
    """Loss, perplexity, bits per byte, accuracy and scale at every loop, from 1 to past the trained depth.

    Prints a table per model and a verdict per condition: which loops are within 1 % of the best perplexity, and whether
    more loops than trained help, hold or hurt. Keeps evaluation.json in each run's folder.

    Example:
        loopscope evaluate depth runs/raw
        loopscope evaluate depth runs/mine --loops 16
        loopscope evaluate depth last.pt --data 'text/*.txt' --json
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, study folders (all of their runs), model folders, published last.pt files."""
    loops: int | None = None
    """The deepest loop; twice the trained depth by default."""
    keep_in: Path | None = None
    """Keep evaluation.json in this folder instead of the model's. Then `loopscope report` it."""
    again: bool = False
    """Measure anew what was measured before; else a call after an interruption goes on with what is missing."""


def evaluate_depth(arguments: Sequence[str]) -> None:
    """`loopscope evaluate depth`."""
    command = parse(Depth, "evaluate depth", arguments)
    if not command.paths:
        raise ValueError("give a path to evaluate: a run, a study, a model folder, a last.pt")
    check_counts(command, "loops", most=DEEPEST)
    text = job_arguments(command)
    from loopscope.cli.evaluate_depth_print import print_curves, print_verdicts
    from loopscope.jobs import check_one, depth_verdicts, measure_depth, ordered_runs

    runs = [run for given in command.paths for run in ordered_runs(given)]
    check_one(runs, command.keep_in)
    evaluations = []
    errors: list[ValueError] = []

    def measure(run: Path, if_known: "IfKnown") -> "ModelEvaluation":
        return measure_depth(run, command.loops, keep_in=command.keep_in, if_known=if_known, **text)

    for _, evaluation in measured(runs, measure, "evaluate depth", command.again, errors):
        evaluations.append(evaluation)
        if not command.json:
            print_curves(evaluation)
    if command.json:
        print_json(evaluations)
    else:
        print_verdicts(depth_verdicts(evaluations))
    refuse_errors(errors, len(runs))
