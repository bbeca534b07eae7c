"""What every depth is worth on held-out text: one unroll per batch gives all of them.

A model is read in two ways. `at depth`: loop k is the last loop of an unroll of k loops, which is what a user who
runs k loops gets. `as trained`: loop k, up to the trained depth K, is exit k of an unroll of K loops, as training
read it. They differ where a readout asks whether a loop is the last (final-only), or where the states themselves know
how many loops there are (LoopFormer). The second reading is left out where both are the same.

States do not depend on the depth of the unroll, so one unroll to the deepest loop serves both readings; readouts are
given the depth that they are read at. Where states do (`depth_conditioned`), every depth takes an unroll of its own:
D(D+1)/2 loops for D depths.

Memory: one hidden state, one readout and two chunks of logits at a time, whatever the depth; and five numbers per
window and loop.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.evaluation.depth.readings import in_unroll_of, states_at_depths
from loopscope.evaluation.depth.token_scores import token_scores
from loopscope.evaluation.texts import UncheckedBatch, texts_in
from loopscope.guards import evaluating
from loopscope.numerics import l2_norm, scale
from loopscope.objectives.labels import check_range
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.ops.narrow_products import products_of
from loopscope.recurrence import (
    AbstractLoopedLM,
    LoopState,
    check_loops,
    unroll,
    vocabulary_size,
)
from loopscope.results import CurveReading, DepthCurve, LoopQuality, bits_per_byte, perplexity

UncheckedBatches = Iterable[UncheckedBatch]
READINGS: tuple[CurveReading, ...] = ("at depth", "as trained")


@torch.no_grad()
def depth_curves(
    model: AbstractLoopedLM,
    batches: UncheckedBatches,
    bytes_per_token: float,
    loops: Any = None,
    device: torch.device | None = None,
) -> tuple[DepthCurve, ...]:
    """Measure loss, perplexity, bits per byte, accuracy, exact match and scale at every loop from 1 to `loops`.

    Runs in evaluation mode and in the caller's precision context; sums are float64.

    Args:
        batches: input ids and labels, [batch seq]; a label of -100 is not counted. A third tensor of that shape is an
            attention mask, 1 at tokens and 0 at padding (left, right or both): each window then gives what its text
            gives alone, and no label of padding counts.
        bytes_per_token: UTF-8 bytes of the text over its tokens.
        loops: the deepest loop; None: twice the trained depth.
        device: where the model is; None: the CPU.

    Returns:
        The curve `at depth`; where it differs, the curve `as trained` after it. `window_loss` is NaN for a window
        without a label that counts.

    Raises:
        ValueError: loops below 1, no batch, no label that counts, ids that the model does not have, or labels or a
            mask that do not fit the ids.
    """
    depth = check_loops(2 * model.loops if loops is None else loops)
    sums: dict[CurveReading, list[Tensor]] = {"at depth": [], "as trained": []}
    counted: list[Tensor] = []
    order: list[Tensor] = []
    tokens = 0
    vocabulary: int | None = None
    readings = READINGS
    with evaluating(model), products_of(model):
        for windows, texts in texts_in(batches):
            input_ids, labels = texts.input_ids, texts.labels
            if vocabulary is None:
                vocabulary = vocabulary_size(model, input_ids[:1].to(device))
                check_range(input_ids, labels, vocabulary)
                readings = READINGS if _differ(model, input_ids[:1].to(device), depth) else READINGS[:1]
            check_range(input_ids, labels, vocabulary)
            input_ids, labels = input_ids.to(device), labels.to(device)
            rows: dict[CurveReading, list[Tensor]] = {"at depth": [], "as trained": []}
            for reading, state in _read(model, input_ids, depth, readings):
                rows[reading].append(_figures(state, labels, vocabulary))
            rows["as trained"] += rows["at depth"][len(rows["as trained"]) :]
            for reading in readings:
                sums[reading].append(torch.stack(rows[reading]).cpu())
            counted.append((labels != IGNORE_INDEX).sum(dim=1).cpu())
            tokens += labels.numel()
            order.append(windows)
    if not tokens or not int(torch.cat(counted).sum()):
        raise ValueError("nothing to evaluate on: no window, or every label is ignored")
    in_order = torch.cat(order).argsort()
    labelled = torch.cat(counted)[in_order]
    return tuple(
        _curve(reading, torch.cat(sums[reading], dim=-1)[..., in_order], labelled, tokens, bytes_per_token)
        for reading in readings
    )


def _read(
    model: AbstractLoopedLM, input_ids: Tensor, depth: int, readings: tuple[CurveReading, ...]
) -> Iterator[tuple[CurveReading, LoopState]]:
    """Every loop in every reading; `as trained` only below the trained depth, from which on both are the same."""
    trained = range(1, min(model.loops, depth + 1)) if "as trained" in readings else range(0)
    if model.depth_conditioned:
        for state in states_at_depths(model, input_ids, range(1, depth + 1)):
            yield "at depth", state
        if trained:
            for state in unroll(model, input_ids):
                if state.loop in trained:
                    yield "as trained", state
        return
    for state in unroll(model, input_ids, depth):
        yield "at depth", in_unroll_of(state, state.loop)
        if state.loop in trained:
            yield "as trained", in_unroll_of(state, model.loops)


def _differ(model: AbstractLoopedLM, input_ids: Tensor, depth: int) -> bool:
    """Whether exits below the trained depth read otherwise when they are last: asked with one window."""
    deepest = min(model.loops - 1, depth)
    if model.depth_conditioned or deepest < 1:
        return model.depth_conditioned and deepest >= 1
    return any(
        not torch.equal(
            in_unroll_of(state, state.loop).features(), in_unroll_of(state, model.loops).features()
        )
        for state in unroll(model, input_ids, deepest)
    )


def _figures(state: LoopState, labels: Tensor, vocabulary: int) -> Float[Tensor, "figures batch"]:
    """Sums over each window's tokens: loss, hits, L2 norm, RMS; and whether every counted label is a hit."""
    loss, hit = token_scores(state.model.head, state.features(), labels, vocabulary)
    right = (hit | (labels == IGNORE_INDEX)).all(dim=1)
    norm, size = l2_norm(state.hidden), scale(state.hidden)
    sums = [figure.double().sum(dim=1) for figure in (loss, hit, norm, size)]
    return torch.stack([*sums, right.double()])


def _curve(
    reading: CurveReading,
    sums: Float[Tensor, "loops figures windows"],
    counted: Int[Tensor, " windows"],
    tokens: int,
    bytes_per_token: float,
) -> DepthCurve:
    labels = int(counted.sum())
    answered = counted > 0
    answers = labels < tokens  # some labels are ignored: the others are answers
    per_loop = []
    for loop, (loss, hits, norm, size, right) in enumerate(sums, start=1):
        nats = float(loss.sum()) / labels
        per_loop.append(
            LoopQuality(
                loop=loop,
                loss=nats,
                perplexity=perplexity(nats),
                bits_per_byte=bits_per_byte(nats, bytes_per_token),
                l2_norm=float(norm.sum()) / tokens,
                rms=float(size.sum()) / tokens,
                accuracy=float(hits.sum()) / labels,
                exact_match=float(right[answered].mean()) if answers else None,
            )
        )
    even = bool((counted == counted[0]).all())
    return DepthCurve(
        reading=reading,
        per_loop=tuple(per_loop),
        window_loss=tuple(tuple((row / counted).tolist()) for row in sums[:, 0]),
        window_labels=() if even else tuple(counted.tolist()),
    )
