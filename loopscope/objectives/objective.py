"""The objective: one pass over an unroll's states, one loss with its terms by name.

States are consumed as the recurrence yields them, and each loop's logits are dropped before the next
loop runs: memory holds one chunk of logits, not loops × batch × seq × vocab.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.penalties import AbstractPenalty, NormPenalty, ScaleAnchor
from loopscope.objectives.placements import (
    AbstractPlacement,
    Dense,
    ExitWeighted,
    Reading,
    Terminal,
    mean_over,
)
from loopscope.objectives.token_loss import IGNORE_INDEX, Head, chunked_cross_entropy
from loopscope.recurrence import LoopState, l2_norm, wide

TokenLoss = Callable[[Head, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss and what it is made of. Everything stays on the device; nothing here waits for it."""

    total: Float[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]]  # their sum is `total`
    cross_entropy: Float[Tensor, " loops"]  # detached mean per loop; NaN where the placement skips a loop
    l2_norm: Float[Tensor, " loops"]  # detached mean over tokens of the L2 norm of H_k
    mean_square: Float[Tensor, " loops"]  # mean over tokens and channels of H_k², with gradient


class Objective:
    """A placement and penalties, applied to the states of one unroll."""

    def __init__(
        self,
        placement: AbstractPlacement,
        penalties: Sequence[AbstractPenalty] = (),
        token_loss: TokenLoss = chunked_cross_entropy,
    ) -> None:
        self.placement = placement
        self.penalties = penalties
        self.token_loss = token_loss

    @property
    def name(self) -> str:
        """What reports call it: `dense + norm_penalty`."""
        return " + ".join([self.placement.name, *(penalty.name for penalty in self.penalties)])

    def __call__(self, states: Iterable[LoopState], labels: Int[Tensor, "batch seq"]) -> Loss:
        """The loss of an unroll: `objective(unroll(model, input_ids), labels)`.

        Args:
            states: the unroll; consumed.
            labels: the token that follows each input token; -100 is not counted.
        """
        counted = labels != IGNORE_INDEX
        readings, norms, squares, means = [], [], [], []
        for state in states:
            reading = self._read(state, labels)
            token_loss = reading.token_loss
            readings.append(reading)
            with torch.no_grad():
                norms.append(l2_norm(state.hidden).mean())
                means.append(
                    norms[-1].new_tensor(torch.nan) if token_loss is None else mean_over(token_loss, counted)
                )
            squares.append(wide(state.hidden).square().mean())
        mean_square = torch.stack(squares)
        terms = dict(self.placement.terms(readings, counted))
        for penalty in self.penalties:
            terms[penalty.name] = penalty(mean_square)
        return Loss(
            total=torch.stack(list(terms.values())).sum(),
            terms=terms,
            cross_entropy=torch.stack(means),
            l2_norm=torch.stack(norms),
            mean_square=mean_square,
        )

    def split(
        self, states: Iterable[LoopState], labels: Int[Tensor, "batch seq"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        """The loss in its finest terms, for audits: the cross-entropy by exit (`cross_entropy@2`), and the rest.

        Their sum is the loss. Unlike the loss itself, every term keeps its own graph.
        """
        counted = labels != IGNORE_INDEX
        readings, squares = [], []
        for state in states:
            readings.append(self._read(state, labels))
            squares.append(wide(state.hidden).square().mean())
        terms = {
            f"cross_entropy@{loop}": share for loop, share in self.placement.shares(readings, counted).items()
        }
        terms |= {
            name: term
            for name, term in self.placement.terms(readings, counted).items()
            if name != "cross_entropy"
        }
        return terms | {penalty.name: penalty(torch.stack(squares)) for penalty in self.penalties}

    def _read(self, state: LoopState, labels: Int[Tensor, "batch seq"]) -> Reading:
        token_loss = None
        if self.placement.reads(state.loop, state.context.loops):
            token_loss = self.token_loss(state.model.head, state.features(), labels)
        return Reading(state.loop, token_loss, state.gate_logit())


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective a config names."""
    penalties: list[AbstractPenalty] = []
    norm, anchor = config.norm_penalty, config.scale_anchor
    if norm.weight > 0:
        penalties.append(NormPenalty(norm.weight, norm.over == "each", norm.loop_weights))
    if anchor.weight > 0:
        penalties.append(
            ScaleAnchor(anchor.weight, anchor.target, anchor.over == "each", anchor.loop_weights)
        )
    return Objective(_placement(config), penalties)


def _placement(config: ObjectiveConfig) -> AbstractPlacement:
    match config.placement:
        case "terminal":
            return Terminal()
        case "dense":
            return Dense(config.loop_weights)
        case "exit-weighted":
            return ExitWeighted(config.entropy_weight)
