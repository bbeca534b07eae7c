"""Prognosis: what twice and four times the trained depth will do to the loss, told from K + 2 loops of one forward.

    signs     `prognosis_signs`: what loops 1 to K + 2 show
    rule      `prognosis_rule`: from signs to changes of the loss, with what was fitted on trained models
    cause     `prognosis_cause`: what it comes from, in words

Costs one forward of K + 2 loops without gradients. How well it tells is in docs/results/2026-11-30-prognosis.md.
"""

import math
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.evaluation.depth.prognosis_cause import cause, last_in_fp32
from loopscope.evaluation.depth.prognosis_constants import FITTED
from loopscope.evaluation.depth.prognosis_rule import foretell
from loopscope.evaluation.depth.prognosis_signs import TooDeepError, loop_signs
from loopscope.evaluation.depth.readings import states_at_depths
from loopscope.guards import device_of, evaluating, same_random_numbers
from loopscope.objectives.labels import check_one_label_each, check_range
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, check_model_and_ids, unroll, vocabulary_size
from loopscope.recurrence.model_errors import NOT_FINITE
from loopscope.recurrence.scale_reading import reads_scale
from loopscope.results import LoopSigns, Prognosis, fate_of
from loopscope.wide_weights import widened_to_run

LOOKED_PAST = 2
"""Loops past the trained depth that are looked at."""


@torch.no_grad()
def prognose(model: Any, input_ids: Any, labels: Any) -> Prognosis:
    """Foretell what 2K and 4K loops do to a model's loss. Works in fp32, in evaluation mode.

    Args:
        model: any looped model; it is left as it was.
        input_ids: token ids [batch seq]; about a thousand tokens. The fewer, the wider are the intervals.
        labels: the token that follows each, [batch seq]; -100 is not counted.

    Returns:
        The fate, why, and the change of the loss at 2K and 4K loops. `not told`, with the reason, for a model that was
        trained with one loop, is not finite at its trained depth, or does not run deeper.

    Raises:
        ValueError: no looped model, or ids and labels that do not fit it.
    """
    check_model_and_ids(model, input_ids)
    check_one_label_each(input_ids, labels)
    if not bool((labels != IGNORE_INDEX).any()):
        raise ValueError(f"every label is {IGNORE_INDEX}: there is no token to measure a loss on")
    trained = model.loops
    if trained == 1:
        return _untold(trained, "It was trained with 1 loop: nothing of it was trained to be repeated.")
    with (
        torch.inference_mode(False),
        same_random_numbers(device_of(model)),
        evaluating(model),
        widened_to_run(model, lambda: _runs(model, input_ids[:1])),
        torch.autocast(input_ids.device.type, enabled=False),
    ):
        check_range(input_ids, labels, vocabulary_size(model, input_ids))
        try:
            signs = loop_signs(model, input_ids, labels, trained + LOOKED_PAST)
        except TooDeepError as error:
            return _untold(trained, f"It does not run {error.loops} loops: {error}.")
        blind = scale_blind(model, input_ids[:1])
    return judge_signs(signs, trained, blind, int((labels != IGNORE_INDEX).sum()))


def judge_signs(
    signs: list[LoopSigns], trained: int, blind: bool | None, tokens: int | None = None
) -> Prognosis:
    """Return the prognosis that signs amount to.

    Args:
        signs: of loops 1, 2, …; fewer than K + 2 where the model is not finite there.
        trained: K, 2 or more.
        blind: whether the readout divides by the state's size; None where it is not known.
        tokens: that signs were measured on: the fewer, the wider are intervals. None: chance is left out.
    """
    if len(signs) < trained:
        return _untold(
            trained,
            f"At loop {len(signs) + 1} of {trained} it {NOT_FINITE}.",
        )
    if len(signs) < trained + LOOKED_PAST:
        why = f"At loop {len(signs) + 1}, right after its trained depth {trained}, it {NOT_FINITE}."
        return Prognosis("breaks", why, trained, signs=tuple(signs), scale_blind=blind, tokens=tokens)
    if (last := last_in_fp32(signs, trained)) is not None and last < 4 * trained:
        factor = math.exp(signs[trained + 1].radial_step)
        why = (
            f"The scale grows by a factor of {factor:.2f} in every loop past {trained}: its square passes fp32's "
            f"largest number near loop {last}."
        )
        return Prognosis("breaks", why, trained, signs=tuple(signs), scale_blind=blind, tokens=tokens)
    at = tuple(foretell(signs, trained, times * trained, FITTED[times], tokens) for times in (2, 4))
    return Prognosis(
        fate=fate_of(at[0].change, at[1].change),
        why=cause(signs, trained, blind, at, FITTED[4].level),
        trained_loops=trained,
        level=FITTED[4].level,
        at=at,
        signs=tuple(signs),
        scale_blind=blind,
        tokens=tokens,
    )


@torch.no_grad()
def scale_blind(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> bool:
    """Return whether the readout of the trained depth gives the same for a state of twice the size."""
    (last,) = states_at_depths(model, input_ids, [model.loops])
    return not reads_scale(last)


def _untold(trained: int, why: str) -> Prognosis:
    return Prognosis("not told", why, trained)


def _runs(model: AbstractLoopedLM, input_ids: Tensor) -> bool:
    try:
        next(iter(unroll(model, input_ids))).logits()
    except Exception:  # whatever a stranger's forward says of a type that it does not take
        return False
    return True
