"""The batch that an audit measures on: checked, the model in fp32 and evaluation mode, padding left out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopscope.audit.head_readings import HeadReadings
from loopscope.audit.input_checks import check_audit, check_finite_states, check_subject, frozen, in_fp32
from loopscope.audit.padded_texts import PaddedTexts, padded_texts
from loopscope.guards import device_of, evaluating, same_random_numbers
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from loopscope.objectives.token_loss import chunked_cross_entropy
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll


@dataclass(frozen=True)
class PreparedBatch:
    """What is audited: the model in fp32 and evaluation mode, and tensors that gradients may reach.

    Of padded texts the tokens, packed into one row, by a model that runs each text alone.
    """

    model: AbstractLoopedLM
    input_ids: Tensor
    labels: Tensor
    readings: HeadReadings
    notes: tuple[str, ...]
    padded: PaddedTexts | None

    @torch.no_grad()
    def states(self) -> list[LoopState]:
        """Loops 1 to the trained depth.

        Raises:
            ValueError: one that is not finite.
        """
        states = list(unroll(self.model, self.input_ids))
        check_finite_states(states)
        return states

    def reading_once(self, objective: Objective | None) -> Objective:
        """The objective, dense where there is none, asking the head once for what it asks again."""
        read = copy(objective or Objective(Dense()))
        if read.token_loss is chunked_cross_entropy:
            read.token_loss = self.readings
        return read

    @property
    def first(self) -> tuple[AbstractLoopedLM, Tensor]:
        """The model of one text, and a text."""
        return (self.model, self.input_ids[:1]) if self.padded is None else self.padded.first[:2]

    @property
    def texts(self) -> tuple[AbstractLoopedLM, Tensor, Tensor]:
        """The model of whole texts, some of them (of padded ones the first with a label) and their labels."""
        return (self.model, self.input_ids, self.labels) if self.padded is None else self.padded.first


@contextmanager
def prepared(
    model: Any, input_ids: Any, labels: Any, objectives: Sequence[Any], attention_mask: Any
) -> Iterator[PreparedBatch]:
    """Check what is given, and yield what is measured; the model is put back after it.

    Args:
        model: any looped model.
        input_ids: token ids [batch seq].
        labels: the token that follows each; -100 is not counted.
        objectives: each an `Objective` or None; at least one.
        attention_mask: 1 at tokens, 0 at padding; None: no padding.

    Raises:
        ValueError: says what does not fit.
    """
    with torch.inference_mode(False):
        for objective in objectives:
            looped = check_subject(model, objective)
        with same_random_numbers(device_of(looped)):
            padded = padded_texts(looped, input_ids, labels, attention_mask)
            if padded is not None:
                input_ids, labels = padded.input_ids, padded.labels
            measured = looped if padded is None else padded.model
            check_audit(measured, input_ids, labels)
            # Slices of a batch are not contiguous, and some forwards view them; inference mode's have no gradient.
            input_ids, labels = input_ids.clone(), labels.clone()
            with (
                evaluating(looped),
                in_fp32(looped, input_ids if padded is None else padded.first[1]) as notes,
                frozen(looped),
                torch.autocast(input_ids.device.type, enabled=False),
            ):
                notes += (*looped.remarks, *(() if padded is None else padded.notes))
                yield PreparedBatch(measured, input_ids, labels, HeadReadings(measured), notes, padded)
