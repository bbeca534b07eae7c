"""`loopscope evaluate depth`: what every depth of a model is worth. Heavy imports are inside the functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.evaluate_options import OnText, prepare_machine, print_json, text_for

if TYPE_CHECKING:
    import torch

    from loopscope.jobs.opened import Subject
    from loopscope.jobs.text import HeldOut
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


def evaluate_depth(arguments: Sequence[str]) -> None:
    """`loopscope evaluate depth`."""
    command = parse(Depth, "evaluate depth", arguments)
    if not command.paths:
        raise ValueError("give a path to evaluate: a run, a study, a model folder, a last.pt")
    device = prepare_machine(command)
    from loopscope.cli.evaluate_depth_print import print_curves, print_verdicts
    from loopscope.evaluation.compare.condition import group_evaluations
    from loopscope.evaluation.depth.verdict import depth_verdict
    from loopscope.jobs.evaluate import find_runs
    from loopscope.jobs.opened import open_subject

    evaluations = []
    for path in [found for given in command.paths for found in find_runs(given)]:
        subject = open_subject(path)
        held = text_for(subject, command)
        evaluation = evaluate_depth_of(subject, held, command.loops, command.batch, device)
        evaluations.append(evaluation)
        if not command.json:
            print_curves(evaluation)
    if command.json:
        print_json(evaluations)
        return
    print_verdicts([depth_verdict(condition) for condition in group_evaluations(evaluations)])


def evaluate_depth_of(
    subject: "Subject", held: "HeldOut", loops: int | None, batch: int, device: "torch.device"
) -> "ModelEvaluation":
    """Measure a model's depth curves and keep them beside it, whatever else was evaluated there."""
    from loopscope.evaluation.depth.curve import depth_curves
    from loopscope.jobs.evaluate import evaluation_of, keep_evaluation

    deepest = loops or 2 * subject.model.loops
    begun = evaluation_of(subject, held, deepest)
    model = subject.model.to(device)
    curves = depth_curves(model, held.batches(batch), held.bytes_per_token, deepest, device)
    evaluation = replace(begun, depth=curves)
    keep_evaluation(subject, evaluation)
    return evaluation
