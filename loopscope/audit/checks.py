"""What an audit refuses before it measures anything, and what it changes and says so."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, check_input_ids


@dataclass(frozen=True)
class Checked:
    """A model that can be audited, and what the reader should know."""

    model: AbstractLoopedLM
    notes: tuple[str, ...]


def check_audit(model: Any, input_ids: Tensor, labels: Tensor) -> Checked:
    """Refuse what cannot be audited; widen a half-precision model in a copy.

    Raises:
        ValueError: says what is wrong, and what to do.
    """
    if not isinstance(model, AbstractLoopedLM):
        raise ValueError(
            f"model is a {type(model).__name__}, not a looped model of Loopscope: pass loopscope.adapt(model) "
            "(families that are known) or loopscope.wrap(model, block=..., readout=..., head=...)"
        )
    check_input_ids(input_ids)
    check_labels(input_ids, labels)
    check_weights(model)
    notes: tuple[str, ...] = ()
    narrow = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32, torch.float64}
    if narrow:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in narrow))
        model = copy.deepcopy(model).float()
        notes = (f"The model's weights are {names}; it was audited in an fp32 copy of them.",)
    check_ids(model, input_ids, labels)
    return Checked(model, notes)


def check_weights(model: AbstractLoopedLM) -> None:
    """Refuse weights that are not finite."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"the weights of {name} are not all finite; audit an earlier checkpoint")


def check_labels(input_ids: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one integer per token, or of which none counts."""
    if labels.shape != input_ids.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, input_ids {tuple(input_ids.shape)}; give one label per token"
        )
    if labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"labels have dtype {labels.dtype}; they are token ids, int64 or int32")
    if not bool((labels != IGNORE_INDEX).any()):
        raise ValueError(f"every label is {IGNORE_INDEX}: there is no token to measure a loss on")


def check_ids(model: AbstractLoopedLM, input_ids: Tensor, labels: Tensor) -> None:
    """Refuse ids that the model does not have."""
    training = model.training
    try:
        with torch.no_grad():
            vocabulary = model.eval().forward(torch.zeros_like(input_ids[:1, :1])).shape[-1]
    finally:
        model.train(training)
    for name, ids in (("labels", labels[labels != IGNORE_INDEX]), ("input_ids", input_ids)):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            raise ValueError(f"{name} go from {low} to {high}; this model has ids 0 to {vocabulary - 1}")
