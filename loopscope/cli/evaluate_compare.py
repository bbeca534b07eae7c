"""`loopscope evaluate compare`: a study's conditions side by side. Heavy imports are inside the functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from loopscope.cli.arguments import parse, split_names
from loopscope.cli.evaluate_depth import evaluate_depth_of
from loopscope.cli.evaluate_options import OnText, prepare_machine, text_for

if TYPE_CHECKING:
    import torch

    from loopscope.jobs.opened import Subject
    from loopscope.jobs.text import HeldOut
    from loopscope.results import ModelEvaluation


@dataclass(frozen=True)
class Compare(OnText):
    """Compare a study's conditions at every depth, paired by seed and by window, and say what the data separates.

    Runs without a depth evaluation on this text are evaluated first. Baselines named unlooped and unlooped-deep
    become a compute-matched table. Keeps comparison.json in the study's folder.

    Example:
        loopscope evaluate compare runs/mine
        loopscope evaluate compare runs/mine --conditions dense/raw,dense/rmsnorm --loops 8
        loopscope evaluate compare runs/mine --time --threads 2
    """

    study: tyro.conf.Positional[Path] = Path(".")
    """Study folder."""
    conditions: str | None = None
    """Names, separated by commas; all of the study's by default."""
    loops: int | None = None
    """The deepest loop; twice each condition's trained depth by default."""
    time: bool = False
    """Measure seconds per token at every depth, in this process, alternately."""


def evaluate_compare(arguments: Sequence[str]) -> None:
    """`loopscope evaluate compare`."""
    command = parse(Compare, "evaluate compare", arguments)
    device = prepare_machine(command)
    runs, notes = _runs(command)
    from loopscope.cli.evaluate_compare_print import print_comparison
    from loopscope.evaluation.compare.comparison import compare
    from loopscope.jobs.opened import open_subject
    from loopscope.results import COMPARISON, to_json
    from loopscope.results.layout import write_text

    texts: dict[str, HeldOut] = {}  # runs of one study share their text
    evaluations = []
    for run in runs:
        subject = open_subject(run)  # one model in memory at a time
        key = f"{subject.data} {getattr(getattr(subject.model, 'config', None), 'sequence', None)}"
        if key not in texts:
            texts[key] = text_for(subject, command)
        evaluations.append(_evaluation(subject, texts[key], command, device))
    seconds = _seconds(runs, evaluations, next(iter(texts.values())), command, device) if command.time else {}
    compared = compare(evaluations, seconds, notes)
    write_text(command.study / COMPARISON, to_json(compared))
    if command.json:
        print(to_json(compared))
    else:
        print_comparison(compared)


def _runs(command: Compare) -> tuple[list[Path], list[str]]:
    """Completed runs of the conditions asked for, in the study's order, and a note on every other one."""
    from loopscope.config.nested import read_yaml
    from loopscope.config.recipes import known
    from loopscope.jobs.evaluate import find_runs
    from loopscope.jobs.train import finished

    if not (command.study / "study.yaml").is_file():
        raise ValueError(
            f"study is {command.study}, which holds no study.yaml; compare takes the folder that loopscope study wrote"
        )
    runs = {run: str(read_yaml(run / "config.yaml")["condition"]) for run in find_runs(command.study)}
    results = {run: finished(run) for run in runs}
    began = {
        run: result.provenance.date if result and result.provenance else "" for run, result in results.items()
    }
    order = list(
        dict.fromkeys(runs[run] for run in sorted(runs, key=lambda run: (began[run] == "", began[run])))
    )
    if command.conditions is not None:
        chosen = split_names(command.conditions)
        order = [
            known("condition of this study", name, dict.fromkeys(order)) for name in dict.fromkeys(chosen)
        ]
    kept, notes = [], []
    for run in [run for name in order for run in runs if runs[run] == name]:
        result = results[run]
        if result is not None and result.status == "completed":
            kept.append(run)
        else:
            state = result.status if result else "not finished"
            notes.append(f"{run.relative_to(command.study)} is left out: {state}.")
    if len({runs[run] for run in kept}) < 2:
        there = ", ".join(sorted({runs[run] for run in kept})) or "none"
        left = f" ({' '.join(notes)})" if notes else ""
        raise ValueError(
            f"a comparison needs two conditions with completed runs, and {command.study} has {there}{left}; add one: "
            "loopscope study --conditions …"
        )
    return kept, notes


def _evaluation(
    subject: "Subject", held: "HeldOut", command: Compare, device: "torch.device"
) -> "ModelEvaluation":
    """What was measured of a run before, where it is of this text and deep enough; else measured now.

    Cut to the depth asked for: what is compared is what is tested and corrected for. The run's file keeps the rest.
    """
    from loopscope.jobs.evaluate import evaluation_of

    deepest = command.loops or 2 * subject.model.loops
    known = evaluation_of(subject, held, deepest)
    if known.depth and len(known.depth[0].per_loop) >= deepest:
        return _cut(known, deepest)
    return _cut(evaluate_depth_of(subject, held, deepest, command.batch, device), deepest)


def _cut(evaluation: "ModelEvaluation", deepest: int) -> "ModelEvaluation":
    curves = [
        replace(curve, per_loop=curve.per_loop[:deepest], window_loss=curve.window_loss[:deepest])
        for curve in evaluation.depth
    ]
    return replace(evaluation, depth=tuple(curves), flops_per_token=evaluation.flops_per_token[:deepest])


def _seconds(
    runs: Sequence[Path],
    evaluations: "Sequence[ModelEvaluation]",
    held: "HeldOut",
    command: Compare,
    device: "torch.device",
) -> dict[str, tuple[float, ...]]:
    """Measured seconds per token of the first seed of every condition."""
    from loopscope.evaluation.compare.timing import seconds_per_token
    from loopscope.interop.load import load

    models = {}
    for run, evaluation in zip(runs, evaluations, strict=True):
        name = evaluation.condition or evaluation.name
        if name not in models:
            models[name] = (load(run).to(device), len(evaluation.depth[0].per_loop))
    return seconds_per_token(models, held.input_ids[: command.batch])
