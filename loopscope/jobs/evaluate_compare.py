"""A study's conditions side by side: from its folder to a comparison, kept there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from loopscope.config.nested import read_yaml
from loopscope.config.recipes import known
from loopscope.evaluation.compare.comparison import compare
from loopscope.evaluation.compare.timing import seconds_per_token
from loopscope.interop.load import load
from loopscope.jobs.evaluate import evaluation_of
from loopscope.jobs.evaluate_depth import depth_of
from loopscope.jobs.machine import device_named
from loopscope.jobs.opened import OpenedModel, open_model
from loopscope.jobs.text import TextWindows, held_out
from loopscope.jobs.train import finished
from loopscope.recurrence import check_loops
from loopscope.results import Comparison, ModelEvaluation, to_json
from loopscope.results.layout import COMPARISON, CONFIG, STUDY, is_study, trained_runs, write_text


def compare_study(
    study: str | Path,
    conditions: Sequence[str] | None = None,
    loops: int | None = None,
    *,
    time: bool = False,
    data: str | None = None,
    windows: int | None = None,
    length: int | None = None,
    batch: int = 16,
    device: str = "cpu",
) -> Comparison:
    """Compare a study's conditions at every depth, paired by seed and by window, and keep the comparison in its folder.

    Runs that have no depth evaluation on this text, or none so deep, are evaluated first.

    Args:
        conditions: names of those to compare; None: all.
        loops: the deepest; twice each condition's trained depth by default.
        time: measure seconds per token at every depth, in this process, alternately.
        data: as `held_out` takes it, with `windows` and `length`.
        batch: windows at a time: memory grows with it, results do not change.
        device: auto, cpu, cuda, mps.

    Raises:
        ValueError: no study there, fewer than two conditions with completed runs, or text that cannot be read.
    """
    if loops is not None:
        check_loops(loops)
    study = Path(study)
    where = device_named(device)
    runs = _completed(study, conditions)
    texts: dict[str, TextWindows] = {}  # runs of one study share their text
    evaluations = []
    for run in runs.kept:
        opened = open_model(run)  # one model in memory at a time
        key = f"{opened.data} {getattr(getattr(opened.model, 'config', None), 'sequence', None)}"
        if key not in texts:
            texts[key] = held_out(opened, data, windows, length)
        evaluations.append(_evaluation(opened, texts[key], loops, batch, where))
    seconds: dict[str, tuple[float, ...]] = {}
    if time:
        ids = next(iter(texts.values())).input_ids[:batch].to(where)
        seconds = _seconds(runs.kept, evaluations, ids)
    compared = compare(evaluations, seconds, runs.notes)
    write_text(study / COMPARISON, to_json(compared))
    return compared


@dataclass(frozen=True)
class _Runs:
    kept: list[Path]
    notes: list[str]


def _completed(study: Path, conditions: Sequence[str] | None) -> _Runs:
    """Completed runs of the conditions asked for, in the study's order, and a note on every other one."""
    if not is_study(study):
        raise ValueError(
            f"study is {study}, which holds no {STUDY}; compare takes the folder that loopscope study wrote"
        )
    runs = {run: str(read_yaml(run / CONFIG)["condition"]) for run in trained_runs(study)}
    results = {run: finished(run) for run in runs}
    began = {
        run: result.provenance.date if result and result.provenance else "" for run, result in results.items()
    }
    order = list(
        dict.fromkeys(runs[run] for run in sorted(runs, key=lambda run: (began[run] == "", began[run])))
    )
    if conditions is not None:
        names = dict.fromkeys(order)
        order = [known("condition of this study", name, names) for name in dict.fromkeys(conditions)]
    kept, notes = [], []
    for run in [run for name in order for run in runs if runs[run] == name]:
        result = results[run]
        if result is not None and result.status == "completed":
            kept.append(run)
        else:
            state = result.status if result else "not finished"
            notes.append(f"{run.relative_to(study)} is left out: {state}.")
    if len({runs[run] for run in kept}) < 2:
        there = ", ".join(sorted({runs[run] for run in kept})) or "none"
        left = f" ({' '.join(notes)})" if notes else ""
        raise ValueError(
            f"a comparison needs two conditions with completed runs, and {study} has {there}{left}; add one: "
            "loopscope study --conditions …"
        )
    return _Runs(kept, notes)


def _evaluation(
    opened: OpenedModel, text: TextWindows, loops: int | None, batch: int, device: torch.device
) -> ModelEvaluation:
    """What was measured of a run before, where it is of this text and deep enough; else measured now.

    Cut to the depth asked for: what is compared is what is tested and corrected for. The run's file keeps the rest.
    """
    deepest = loops or 2 * opened.model.loops
    known = evaluation_of(opened, text, deepest)
    if known.depth and len(known.depth[0].per_loop) >= deepest:
        return _cut(known, deepest)
    return _cut(depth_of(opened, text, deepest, batch, device), deepest)


def _cut(evaluation: ModelEvaluation, deepest: int) -> ModelEvaluation:
    curves = [
        replace(curve, per_loop=curve.per_loop[:deepest], window_loss=curve.window_loss[:deepest])
        for curve in evaluation.depth
    ]
    return replace(evaluation, depth=tuple(curves), flops_per_token=evaluation.flops_per_token[:deepest])


def _seconds(
    runs: Sequence[Path], evaluations: Sequence[ModelEvaluation], ids: torch.Tensor
) -> dict[str, tuple[float, ...]]:
    """Measured seconds per token of the first seed of every condition, on the device of `ids`."""
    models = {}
    for run, evaluation in zip(runs, evaluations, strict=True):
        name = evaluation.condition or evaluation.name
        if name not in models:
            models[name] = (load(run).to(ids.device), len(evaluation.depth[0].per_loop))
    return seconds_per_token(models, ids)
