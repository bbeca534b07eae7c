"""The fp32 run that runs in other number formats are compared with, of a few sequences and to any depth."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.audit.interventions import mean_loss
from loopscope.numerics import scale
from loopscope.objectives.extras import TokenLoss
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.recurrence import LoopState
from loopscope.recurrence.scale_reading import reads_scale

ROUNDED_TOKENS = 512
"""Tokens looked at, of whole sequences, at least one."""


def rounded_rows(labels: Int[Tensor, "batch seq"]) -> list[int]:
    """Return on which sequences rounding is measured: the first ones that have a label."""
    counted: list[int] = (labels != IGNORE_INDEX).any(dim=1).nonzero().flatten().tolist()
    return counted[: max(1, ROUNDED_TOKENS // labels.shape[1])]


class ReferenceRun:
    """The fp32 run: its states while their sizes are finite, its exits' losses, and what the first loop started from.

    Args:
        labels: of the whole batch; -100 is not counted.
        rows: the sequences that are measured.
        depth: loops of the unroll that it sees.
        token_loss: cross-entropy per token.
    """

    def __init__(
        self,
        labels: Int[Tensor, "batch seq"],
        rows: Sequence[int],
        depth: int,
        token_loss: TokenLoss = chunked_cross_entropy,
    ) -> None:
        first = list(rows) == list(range(len(rows)))
        self.rows = slice(len(rows)) if first else list(rows)
        self.labels = labels if first and len(rows) == len(labels) else labels[self.rows]
        self.depth, self.token_loss = depth, token_loss
        self.start = torch.empty(0)
        self.states: list[Float[Tensor, "rows seq dim"]] = []
        self.read: list[Bool[Tensor, "rows seq"]] = []  # whether a token's features are more than zeros
        self.losses: list[float] = []
        self.scales: list[float] = []  # mean over tokens
        self.finite = True
        self.reads_scale: bool | None = None  # whether features change with the state's size

    @torch.no_grad()
    def see(self, state: LoopState) -> bool:
        """Take the next state of the whole batch; return whether those of its rows were finite so far."""
        if self.finite:
            hidden, features = state.hidden[self.rows], state.features()[self.rows]
            losses = self.token_loss(state.model.head, features, self.labels)
            loss = mean_loss(losses, self.labels)
            sizes = scale(hidden)
            self.finite = math.isfinite(loss) and bool(torch.isfinite(sizes).all())
            if self.finite:
                self.start = state.context.embedded[self.rows]
                self.states.append(hidden)
                self.read.append((features != 0).any(dim=-1))
                if self.reads_scale is None:
                    self.reads_scale = reads_scale(state)
                self.losses.append(loss)
                self.scales.append(float(sizes.mean()))
        return self.finite
