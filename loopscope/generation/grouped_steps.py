"""Rows that cannot share a batch: each group in one of its own, and to whoever draws they are one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.generation.steps import AbstractSteps, StepOutput


@dataclass(frozen=True)
class RowGroup:
    """Some rows of a batch, without the columns that are padding in all of them.

    Attributes:
        rows: of the whole batch, ascending.
        first: the first column that holds a token of one of them.
    """

    rows: Int[Tensor, " rows"]
    first: int
    steps: AbstractSteps


class GroupedSteps(AbstractSteps):
    """Steps of several groups of rows. A step makes one step of each."""

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        self._groups, self._columns = list(groups), 0

    def prefill(self, input_ids: Int[Tensor, "rows seq"]) -> None:
        for group in self._groups:
            own = input_ids[group.rows, max(0, group.first - self._columns) :]
            if own.shape[1]:
                group.steps.prefill(own)
        self._columns += input_ids.shape[1]

    def step(self, tokens: Int[Tensor, " rows"]) -> StepOutput:
        parts = [group.steps.step(tokens[group.rows]) for group in self._groups]
        order = torch.cat([group.rows for group in self._groups]).argsort()
        logits = torch.cat([part.logits.to(parts[0].logits) for part in parts])
        return StepOutput(logits[order], torch.cat([part.loops for part in parts])[order.cpu()])

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        kept = []
        for group in self._groups:
            stays = torch.isin(rows, group.rows)  # of the new batch
            if not bool(stays.any()):
                continue
            group.steps.select(torch.searchsorted(group.rows, rows[stays]))
            kept.append(RowGroup(stays.nonzero().squeeze(1), group.first, group.steps))
        self._groups = kept
