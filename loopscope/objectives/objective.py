"""The objective: one pass over an unroll's states, one loss with its terms by name.

States are consumed as the recurrence yields them, and each loop's logits are dropped before the next
loop runs: memory holds one chunk of logits, not loops × batch × seq × vocab.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.guards import RandomState
from loopscope.numerics import l2_norm, wide
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.extras import AbstractCollector, AbstractExtra, TokenLoss
from loopscope.objectives.jacobian import JacobianPenalty
from loopscope.objectives.linear_cross_entropy import LinearCrossEntropy
from loopscope.objectives.penalties import AbstractPenalty, NormPenalty, ScaleAnchor
from loopscope.objectives.placement_config import PLACEMENTS, placement_of
from loopscope.objectives.placements import AbstractPlacement, LossInput, mean_over
from loopscope.objectives.shortcut import ShortcutConsistency
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy
from loopscope.ops.dispatch import cpu_ops_apply
from loopscope.recurrence import LoopState


@dataclass(frozen=True)
class Loss:
    """A loss and what it is made of: total, terms by name, and figures per loop. All of it stays on the device."""

    total: Float[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]]  # their sum is `total`
    cross_entropy: Float[Tensor, " loops"]  # detached mean per loop; NaN where the placement skips a loop
    l2_norm: Float[Tensor, " loops"]  # detached mean over tokens of the L2 norm of H_k
    mean_square: Float[Tensor, " loops"]  # mean over tokens and channels of H_k², with gradient
    dim: int  # channels of H_k

    @property
    def rms(self) -> Float[Tensor, " loops"]:
        """Scale per loop: mean over tokens of s_k, as monitors and audits have it."""
        sizes: Tensor = self.l2_norm / self.dim**0.5
        return sizes

    def detached(self) -> "Loss":
        """Return the figures alone: a loss holds on to its graph, and that to a chunk of logits."""
        return replace(
            self,
            total=self.total.detach(),
            terms={name: term.detach() for name, term in self.terms.items()},
            mean_square=self.mean_square.detach(),
        )


class Objective:
    """A placement, penalties and extra terms, applied to the states of one unroll: `objective(states, labels)`."""

    def __init__(
        self,
        placement: AbstractPlacement,
        penalties: Sequence[AbstractPenalty] = (),
        token_loss: TokenLoss = chunked_cross_entropy,
        extras: Sequence[AbstractExtra] = (),
    ) -> None:
        self.placement = placement
        self.penalties = penalties
        self.token_loss = token_loss
        self.extras = extras

    def advance(self, progress: float) -> None:
        """Tell the objective how much of training is done, from 0 to 1. Until then it is what it is at the end."""
        self.placement.advance(progress)

    @property
    def name(self) -> str:
        """What reports call it: `dense + norm_penalty`."""
        added = [part.name for parts in (self.penalties, self.extras) for part in parts]
        return " + ".join([self.placement.name, *added])

    def __call__(
        self,
        states: Iterable[LoopState],
        labels: Int[Tensor, "batch seq"],
        sized: Bool[Tensor, "batch seq"] | None = None,
    ) -> Loss:
        """Return the loss of an unroll: `objective(unroll(model, input_ids), labels)`.

        Args:
            states: the unroll; consumed.
            labels: the token that follows each input token; -100 is not counted.
            sized: tokens whose states count in sizes and in penalties on them; None: all.
        """
        counted = labels != IGNORE_INDEX
        loss_inputs, norms, squares, means = [], [], [], []
        collectors: list[AbstractCollector] | None = None
        before = RandomState(labels.device)  # an unroll draws nothing until its first state is asked for
        dim = 0
        fast: LinearCrossEntropy | None = None
        for state in states:
            dim = state.hidden.shape[-1]
            collectors = self._see(state, collectors, before)
            if fast is None:
                fast = self._linear_cross_entropy(state, labels)
            loss_input = self._read(state, labels, fast)
            token_loss = loss_input.token_loss
            loss_inputs.append(loss_input)
            with torch.no_grad():
                norms.append(_mean_of(l2_norm(state.hidden), sized))
                means.append(
                    norms[-1].new_tensor(torch.nan) if token_loss is None else mean_over(token_loss, counted)
                )
            squares.append(_mean_of(wide(state.hidden).square(), sized))
        mean_square = torch.stack(squares)
        terms = {} if fast is None else {"cross_entropy": fast.finish()}
        if fast is None:
            terms.update(self.placement.terms(loss_inputs, counted))
        for penalty in self.penalties:
            terms[penalty.name] = penalty(mean_square)
        for collector in collectors or ():
            terms.update(collector.terms(labels, counted, self.token_loss))
        return Loss(
            total=torch.stack(list(terms.values())).sum(),
            terms=terms,
            cross_entropy=torch.stack(means),
            l2_norm=torch.stack(norms),
            mean_square=mean_square,
            dim=dim,
        )

    def split(
        self, states: Iterable[LoopState], labels: Int[Tensor, "batch seq"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        """Return the loss in its finest terms, for audits: cross-entropy by exit (`cross_entropy@2`), and the rest.

        Their sum is the loss. Unlike the loss itself, every term keeps its own graph.
        """
        counted = labels != IGNORE_INDEX
        loss_inputs, squares = [], []
        collectors: list[AbstractCollector] | None = None
        before = RandomState(labels.device)  # an unroll draws nothing until its first state is asked for
        for state in states:
            collectors = self._see(state, collectors, before)
            loss_inputs.append(self._read(state, labels))
            squares.append(wide(state.hidden).square().mean())
        terms = {
            f"cross_entropy@{loop}": share
            for loop, share in self.placement.shares(loss_inputs, counted).items()
        }
        terms |= {
            name: term
            for name, term in self.placement.terms(loss_inputs, counted).items()
            if name != "cross_entropy"
        }
        terms |= {penalty.name: penalty(torch.stack(squares)) for penalty in self.penalties}
        for collector in collectors or ():
            terms |= collector.terms(labels, counted, self.token_loss)
        return terms

    def _linear_cross_entropy(
        self, state: LoopState, labels: Int[Tensor, "batch seq"]
    ) -> LinearCrossEntropy | None:
        """The sum that takes gradients while logits are there, where this loss and this model allow it."""
        if self.token_loss is not chunked_cross_entropy:
            return None
        matrix = state.model.head_matrix()
        if matrix is None or not cpu_ops_apply("linear_cross_entropy", matrix):
            return None
        if self.placement.share(state.loop, state.context.loops) is None:
            return None
        return LinearCrossEntropy(matrix, labels)

    def _read(
        self,
        state: LoopState,
        labels: Int[Tensor, "batch seq"],
        fast: LinearCrossEntropy | None = None,
    ) -> LossInput:
        gate_only, token_loss = self.placement.gate_only, None
        loops = state.context.loops
        share = self.placement.share(state.loop, loops)
        if not self.placement.reads(state.loop, loops):
            pass
        elif fast is not None and share is not None:
            token_loss = fast.add(state.features(), share)
        else:
            with torch.no_grad() if gate_only else nullcontext():
                token_loss = self._token_loss(state, labels)
        if gate_only:
            # Asked of the model, not of the state: an audit's states would give the gate a leaf of its own.
            gate_logit = state.model.gate_alone(state.hidden, state.loop, state.context)
        else:
            gate_logit = state.gate_logit()
        return LossInput(state.loop, token_loss, gate_logit)

    def _token_loss(self, state: LoopState, labels: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        if self.token_loss is not chunked_cross_entropy:
            return self.token_loss(state.model.head, state.features(), labels)
        return chunked_cross_entropy(state.model.head, state.features(), labels, exits=state.context.loops)

    def _see(
        self, state: LoopState, collectors: list[AbstractCollector] | None, before: RandomState
    ) -> list[AbstractCollector]:
        """Show a state to the extra terms; the first one makes their collectors."""
        if collectors is None:
            loops, training = state.context.loops, state.model.training
            collectors = [extra.collector(loops, training, before) for extra in self.extras]
        for collector in collectors:
            collector.see(state)
        return collectors


def _mean_of(values: Float[Tensor, "batch seq ..."], sized: Tensor | None) -> Float[Tensor, ""]:
    if sized is None:
        return values.mean()
    return mean_over(values.flatten(2).mean(dim=2) if values.ndim > 2 else values, sized)


def build_objective(config: ObjectiveConfig) -> Objective:
    """Build the objective that a config names."""
    penalties: list[AbstractPenalty] = []
    norm, anchor = config.norm_penalty, config.scale_anchor
    if norm.weight > 0:
        penalties.append(NormPenalty(norm.weight, norm.over == "each", norm.loop_weights))
    if anchor.weight > 0:
        penalties.append(
            ScaleAnchor(anchor.weight, anchor.target, anchor.over == "each", anchor.loop_weights)
        )
    extras: list[AbstractExtra] = []
    if config.shortcut.weight > 0:
        extras.append(ShortcutConsistency(config.shortcut.weight, config.shortcut.loss_weight))
    if config.jacobian.weight > 0:
        jacobian = config.jacobian
        extras.append(JacobianPenalty(jacobian.weight, jacobian.iterations, jacobian.through_state))
    return Objective(build_placement(config), penalties, extras=extras)


def build_placement(config: ObjectiveConfig) -> AbstractPlacement:
    """Return the placement that a config names, shipped or of the user's own."""
    chosen = placement_of(config)
    placement: AbstractPlacement = PLACEMENTS.load(chosen.name).from_config(config, chosen.settings)
    placement.name = chosen.name
    return placement
