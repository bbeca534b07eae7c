"""What every depth of a model is worth: from a path to its evaluation, and verdicts over several."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from loopscope.data.lost_text import lost_text_note
from loopscope.evaluation.compare.condition import group_evaluations
from loopscope.evaluation.depth.curve import depth_curves
from loopscope.evaluation.depth.prognosis import prognose
from loopscope.evaluation.depth.verdict import depth_verdict
from loopscope.jobs.counted_flops import counted_flops
from loopscope.jobs.evaluate import evaluation_of, keep_evaluation
from loopscope.jobs.machine import device_named, placed
from loopscope.jobs.opened import OpenedModel, open_model
from loopscope.jobs.text import TextWindows, held_out
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import check_loops, vocabulary_size
from loopscope.results import DepthCurve, DepthVerdict, ModelEvaluation, Prognosis

FORETOLD_FROM = 8
"""Windows that a prognosis is told from: as many as an audit measures on."""


def measure_depth(
    path: str | Path,
    loops: int | None = None,
    *,
    data: str | None = None,
    windows: int | None = None,
    length: int | None = None,
    batch: int = 16,
    device: str = "cpu",
    keep_in: str | Path | None = None,
    if_known: Callable[[], None] | None = None,
) -> ModelEvaluation:
    """Loss, accuracy and scale at every depth of one model, kept beside it.

    Args:
        loops: the deepest; twice the trained depth by default.
        data: as `held_out` takes it, with `windows` and `length`.
        batch: windows at a time: memory grows with it, results do not change.
        device: auto, cpu, cuda, mps.
        keep_in: the folder in which it is kept instead.
        if_known: called in place of measuring, where that was done before: of the same checkpoint, on the same text, as
            deep. None measures anew.

    Raises:
        ValueError: no model there, text that cannot be read, or a device that is not there.
    """
    if loops is not None:
        check_loops(loops)
    where = device_named(device)
    opened = open_model(path, keep_in)
    text = held_out(opened, data, windows, length)
    if if_known and (known := depth_before(opened, text, loops)) and known.weights:
        if_known()
        return known
    return depth_of(opened, text, loops, batch, where)


def depth_before(opened: OpenedModel, text: TextWindows, loops: int | None) -> ModelEvaluation | None:
    """Return what was measured of a model before on this text, where it is deep enough; else None.

    Cut to the depth asked for: what is compared is what is tested and corrected for. The model's file keeps the rest.
    """
    deepest = loops or 2 * opened.model.loops
    known = evaluation_of(opened, text, deepest)
    if not known.depth or len(known.depth[0].per_loop) < deepest:
        return None
    return cut_depth(known, deepest)


def cut_depth(evaluation: ModelEvaluation, deepest: int) -> ModelEvaluation:
    """Return an evaluation without the loops past a depth."""
    curves = [
        replace(curve, per_loop=curve.per_loop[:deepest], window_loss=curve.window_loss[:deepest])
        for curve in evaluation.depth
    ]
    return replace(evaluation, depth=tuple(curves), flops_per_token=evaluation.flops_per_token[:deepest])


def depth_of(
    opened: OpenedModel,
    windows: TextWindows,
    loops: int | None,
    batch: int,
    device: torch.device,
    keep: bool = True,
) -> ModelEvaluation:
    """Measure an opened model's depth curves; keep them beside it, whatever else was evaluated there, where asked."""
    deepest = loops or 2 * opened.model.loops
    begun = evaluation_of(opened, windows, deepest)
    if note := lost_text_note(windows.unknown_share, windows.unread_share, f"the tokenizer of {opened.name}"):
        warnings.warn(note, stacklevel=2)
    device = placed(opened.model, device)
    curves = depth_curves(opened.model, windows.batches(batch), windows.bytes_per_token, deepest, device)
    if note := _untaught(
        opened.name, curves, vocabulary_size(opened.model, windows.input_ids[:1].to(device))
    ):
        warnings.warn(note, stacklevel=2)
    foretold = _foretold(opened, windows, device)
    evaluation = with_flops(replace(begun, depth=curves, prognosis=foretold), opened, windows, deepest)
    if keep:
        keep_evaluation(opened, evaluation)
    return evaluation


def _foretold(opened: OpenedModel, windows: TextWindows, device: torch.device) -> Prognosis:
    """What more loops than trained will do, told from a few of the windows, spread evenly."""
    few = torch.linspace(0, len(windows) - 1, min(FORETOLD_FROM, len(windows))).round().long()
    ids, labels = windows.input_ids[few], windows.labels[few]
    if not bool((labels != IGNORE_INDEX).any()):  # of a task, say: take what has an answer
        answered = (windows.labels != IGNORE_INDEX).any(dim=1)
        ids, labels = (side[answered][:FORETOLD_FROM] for side in (windows.input_ids, windows.labels))
    return prognose(opened.model, ids.to(device), labels.to(device))


def with_flops(
    evaluation: ModelEvaluation, opened: OpenedModel, windows: TextWindows, deepest: int
) -> ModelEvaluation:
    """Return an evaluation with FLOPs to every depth, counted where no config says them."""
    if isinstance(opened.model, LoopedTransformer) or len(evaluation.flops_per_token) >= deepest:
        return evaluation
    counted = counted_flops(opened.model, windows.input_ids, deepest)
    return replace(evaluation, flops_per_token=counted, flops_counted=True)


def _untaught(name: str, curves: Sequence[DepthCurve], vocabulary: int) -> str | None:
    """A note on a model that no exit of which is better than calling every token equally likely."""
    best = min(
        (exit.loss for curve in curves for exit in curve.per_loop if math.isfinite(exit.loss)),
        default=math.inf,
    )
    guessing = math.log(vocabulary)
    if best < guessing:
        return None
    return (
        f"{name}: the best exit's loss is {best:.3f} nats, and calling all {vocabulary:,} tokens equally likely gives "
        f"{guessing:.3f}: it predicts nothing of this text yet, and what depth does to it says nothing of its loops"
    )


def depth_verdicts(evaluations: Sequence[ModelEvaluation]) -> list[DepthVerdict]:
    """A verdict per condition: which loops are near the best, and whether more than the trained depth helps."""
    return [depth_verdict(condition) for condition in group_evaluations(evaluations)]
