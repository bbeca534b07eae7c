"""`loopscope evaluate exits`: what exit rules trade, thresholds that hold, realised speed. Heavy imports are inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.evaluate_options import OnText, job_arguments, measured, print_json, refuse_errors
from loopscope.cli.values import DEEPEST, check_counts, split_names
from loopscope.results.layout import EVALUATION

if TYPE_CHECKING:
    from loopscope.jobs.evaluation_series import IfKnown
    from loopscope.results import ModelEvaluation

MOST_TIMED_PAIRS = 10_000


@dataclass(frozen=True)
class EvaluateExits(OnText):
    """What each exit rule trades on held-out text: perplexity against loops, and time against fixed depth.

    A threshold is chosen on one half of the windows and reported on the other half. Speed is measured there too, in
    turns with fixed depth. The oracle knows the labels: a bound, not a rule.

    Example:
        loopscope evaluate exits runs/raw
        loopscope evaluate exits runs/raw --rules logit-margin,direction-step --target 2
        loopscope evaluate exits runs/x --budget 2.5 --unit sequence --json
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, study folders, model folders, published last.pt files."""
    loops: int | None = None
    """Depth that exits go up to; the trained one by default. At another, nothing is kept but with --keep-in."""
    rules: str = "all"
    """Names, separated by commas; `all` for every rule that the model can run, and the oracle."""
    unit: Literal["sequence", "token", "both"] = "both"
    """What leaves: a whole sequence by its tokens' mean score, or each token alone."""
    target: float = 1.0
    """Perplexity that may be lost against full depth, in percent."""
    budget: float | None = None
    """Mean loops to come down to, as a second target."""
    speed_batch: int = 32
    """Sequences in the batch that speed is measured on."""
    pairs: int = 5
    """Pairs of fixed depth and early exit that are timed; 0 measures no speed."""
    keep: bool = True
    """Keep them in evaluation.json in each run's folder, where `loopscope report` finds them."""
    keep_in: Path | None = None
    """Keep it in this folder instead of the model's."""
    again: bool = False
    """Measure anew what was measured before; else a call after an interruption goes on with what is missing."""


def evaluate_exits(arguments: Sequence[str]) -> None:
    """`loopscope evaluate exits`."""
    command = parse(EvaluateExits, "evaluate exits", arguments)
    if not command.paths:
        raise ValueError("give a path to evaluate: a run, a study, a model folder, a last.pt")
    check_counts(command, "speed_batch", most=100_000)
    check_counts(command, "loops", most=DEEPEST)
    if command.pairs > MOST_TIMED_PAIRS:
        raise ValueError(f"pairs is {command.pairs}; {MOST_TIMED_PAIRS:,} at most are timed")
    text = job_arguments(command)
    from loopscope.cli.evaluate_exits_print import print_exits
    from loopscope.jobs import ExitSettings, check_one, measure_exits, ordered_runs

    settings = ExitSettings(
        rules=None if command.rules == "all" else _names(command.rules),
        units=("sequence", "token") if command.unit == "both" else (command.unit,),
        target=command.target,
        budget=command.budget,
        speed_batch=command.speed_batch,
        pairs=command.pairs,
    )
    runs = [run for given in command.paths for run in ordered_runs(given)]
    check_one(runs, command.keep_in)
    evaluations = []
    errors: list[ValueError] = []

    def measure(run: Path, if_known: "IfKnown") -> "ModelEvaluation":
        where: dict[str, Any] = {"keep": command.keep, "keep_in": command.keep_in}
        return measure_exits(run, settings, loops=command.loops, if_known=if_known, **where, **text)

    for path, evaluation in measured(runs, measure, "evaluate exits", command.again, errors):
        evaluations.append(evaluation)
        if not command.json:
            folder = command.keep_in or path
            print_exits(evaluation, folder / EVALUATION if _is_kept(folder, evaluation) else None)
    if command.json:
        print_json(evaluations)
    refuse_errors(errors, len(runs))


def _is_kept(path: Path, evaluation: "ModelEvaluation") -> bool:
    """Whether a run's folder has these exits: not where it was not asked for, or could not be written."""
    from loopscope.results import load_evaluation, to_json

    kept = load_evaluation(path) if path.is_dir() else None
    return kept is not None and to_json(kept.exits) == to_json(evaluation.exits)


def _names(text: str) -> tuple[str, ...]:
    names = split_names(text)
    if not names:
        raise ValueError("rules is empty; give names separated by commas, or all")
    return tuple(names)
