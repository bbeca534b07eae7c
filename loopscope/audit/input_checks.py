"""What an audit refuses before it measures anything, and what it changes and says so."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.guards import evaluating
from loopscope.numerics import not_finite, scale
from loopscope.objectives.labels import check_one_label_each, check_range
from loopscope.objectives.objective import Objective
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, LoopState, check_input_ids, unroll, vocabulary_size
from loopscope.wide_weights import widened_to_run


def check_audit(model: Any, input_ids: Any, labels: Any, objective: Any = None) -> AbstractLoopedLM:
    """Return the model, if it can be audited on these tokens.

    Args:
        model: a looped model (`AbstractLoopedLM`) with finite weights.
        input_ids: token ids [batch seq] that the model has.
        labels: the token that follows each, [batch seq]; -100 is not counted, and one at least counts.
        objective: an `Objective`, or None.

    Raises:
        ValueError: says what is wrong, and what to do.
    """
    looped = check_subject(model, objective)
    for name, tensor in (("input_ids", input_ids), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; give a tensor of token ids [batch, seq]")
    check_input_ids(input_ids)
    check_labels(input_ids, labels)
    check_weights(looped)
    check_ids(looped, input_ids, labels)
    return looped


def check_subject(model: Any, objective: Any) -> AbstractLoopedLM:
    """Return the model, if it is a looped one and the objective is an `Objective` or None.

    Audits and monitors ask for both.

    Raises:
        ValueError: says what it is instead, and what to pass.
    """
    if not isinstance(model, AbstractLoopedLM):
        raise ValueError(
            f"model is a {type(model).__name__}, not a looped model of Loopscope: pass loopscope.adapt(model) "
            "(families that are known), loopscope.wrap(model, block=..., readout=..., head=...), or an "
            "AbstractLoopedLM of your own (docs/extending.md shows its five methods)"
        )
    if objective is not None and not isinstance(objective, Objective):
        raise ValueError(
            f"objective is {objective!r}; pass an Objective or an ObjectiveConfig of loopscope.objectives, its word "
            "('dense', 'terminal+norm_penalty=0.01'), or None for dense cross-entropy"
        )
    return model


def repeats_inputs(input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"]) -> bool:
    """Return whether the labels are the input tokens themselves: every one that counts equals the token it stands at.

    Text that repeats one token does not count as such.
    """
    counted = labels != IGNORE_INDEX
    same = bool(((labels == input_ids) | ~counted).all())
    return same and len(input_ids[counted].unique()) > 1


def notes_on(states: Sequence[LoopState], labels: Tensor) -> tuple[str, ...]:
    """Return what the reader of an audit should know of the tokens behind these states, one sentence a note."""
    notes = []
    if repeats_inputs(states[0].context.input_ids, labels):
        notes.append(
            "The labels are the input ids themselves, so every cross-entropy is of the token that was read: give the "
            "token that follows each (labels = ids[:, 1:], input_ids = ids[:, :-1])."
        )
    model = states[0].model
    if model.depth_conditioned:
        notes.append(
            f"The states of this model depend on how many loops are run: what is said of loops before {len(states)} is "
            f"of exits on the way of a run of {len(states)}."
        )
    empty = torch.stack([scale(state.hidden) == 0 for state in states]).any(dim=0)
    if bool(empty.any()):
        notes.append(
            f"{int(empty.sum())} of {empty.numel()} tokens have a state of zeros (padding, perhaps): they have no "
            "scale, and are left out of the carries."
        )
    return tuple(notes)


def check_finite_states(states: Sequence[LoopState]) -> None:
    """Raise ValueError for a state that is not finite for some tokens: what is measured behind it means nothing.

    So is one whose square fp32 does not hold: it has no size.
    """
    for state in states:
        unfit = ~torch.isfinite(scale(state.hidden))
        if bool(unfit.any()):
            what = "the state" if not bool(torch.isfinite(state.hidden).all()) else "the state's square"
            raise ValueError(
                f"{what} is not finite in fp32 at loop {state.loop} of {len(states)}, for {int(unfit.sum())} of "
                f"{unfit.numel()} tokens: nothing can be measured behind it. Audit fewer loops (--loops), an earlier "
                "checkpoint, or tokens that the model maps to numbers"
            )


@contextmanager
def in_fp32(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> Iterator[tuple[str, ...]]:
    """Replace weights in half precision by fp32 copies for a while; yield a note where there are any.

    Buffers keep their type unless one loop of the first sequence fails that way: then they are widened too.
    """
    with widened_to_run(model, lambda: _runs(model, input_ids[:1])) as found:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        yield (f"The model's weights are {names}; fp32 copies of them were audited.",) if names else ()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient for a while: an audit's are those of states, and keep nothing for weights."""
    asking = [weight for weight in model.parameters() if weight.requires_grad and weight.is_leaf]
    try:
        for weight in asking:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)


def _runs(model: AbstractLoopedLM, input_ids: Tensor) -> bool:
    try:
        with torch.no_grad():
            next(iter(unroll(model, input_ids))).logits()
    except Exception:  # whatever a stranger's forward says of a type that it does not take
        return False
    return True


def check_weights(model: AbstractLoopedLM) -> None:
    """Raise ValueError for a model whose weights are not all finite."""
    if (unfit := not_finite(model.named_parameters())) is not None:
        raise ValueError(f"the weights are not all finite: {unfit}. Audit an earlier checkpoint")


def check_labels(input_ids: Tensor, labels: Tensor) -> None:
    """Raise ValueError for labels that are not one integer per token, or of which none counts."""
    check_one_label_each(input_ids, labels)
    if labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"labels have dtype {labels.dtype}; they are token ids, int64 or int32")
    if not bool((labels != IGNORE_INDEX).any()):
        raise ValueError(f"every label is {IGNORE_INDEX}: there is no token to measure a loss on")


def check_ids(model: AbstractLoopedLM, input_ids: Tensor, labels: Tensor) -> None:
    """Raise ValueError for ids or labels that are not in the model's vocabulary."""
    with evaluating(model):
        vocabulary = vocabulary_size(model, input_ids)
    check_range(input_ids, labels, vocabulary)
