"""What an audit refuses before it measures anything, and what it changes and says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, check_input_ids


def check_audit(model: Any, input_ids: Tensor, labels: Tensor) -> AbstractLoopedLM:
    """The model, if it can be audited on these tokens.

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
    check_ids(model, input_ids, labels)
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and every part's own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def widened(model: nn.Module) -> Iterator[tuple[str, ...]]:
    """fp32 weights meanwhile, and a note where they were narrower. The narrow tensors come back as they were."""
    narrow = [
        tensor
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64)
    ]
    kept = [tensor.data for tensor in narrow]
    names = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in kept}))
    for tensor in narrow:
        tensor.data = tensor.data.float()
    try:
        yield (f"The model's weights are {names}; they were widened to fp32 for the audit.",) if names else ()
    finally:
        for tensor, data in zip(narrow, kept, strict=True):
            tensor.data = data


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
    with evaluating(model), torch.no_grad():
        vocabulary = model.forward(torch.zeros_like(input_ids[:1, :1])).shape[-1]
    for name, ids in (("labels", labels[labels != IGNORE_INDEX]), ("input_ids", input_ids)):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            raise ValueError(f"{name} go from {low} to {high}; this model has ids 0 to {vocabulary - 1}")
