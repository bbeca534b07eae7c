"""Rounding: the same weights and tokens in another number format, against fp32, loop by loop past the trained depth.

Of the first sequences only, so that the price does not grow with the batch. The fp32 states are kept for the
comparison (`ROUNDED_TOKENS` of each loop, one copy for all formats), the other run streams.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.audit.expansion import direction
from loopscope.audit.interventions import cross_entropy, mean_loss
from loopscope.audit.number_formats import FORMATS, copies_are_large, in_format, shared_matrices
from loopscope.audit.rounding_verdict import judge_rounding
from loopscope.numerics import l2_norm, scale, wide
from loopscope.objectives.extras import TokenLoss
from loopscope.objectives.token_loss import chunked_cross_entropy
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll
from loopscope.results import LoopDynamics, RoundedLoop, Rounding
from loopscope.wide_weights import is_narrow

ROUNDED_TOKENS = 512
"""Tokens looked at, of whole sequences, at least one."""
MOVES = 1e-5
"""Relative change of a channel that counts as one: fp32's own rounding is below it, half of bf16's last digit above."""


def measure_rounding(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    formats: Sequence[str],
    loops: int,
    dynamics: Sequence[LoopDynamics] = (),
    reference: "ReferenceRun | None" = None,
) -> list[Rounding]:
    """Run a model in other number formats and say what becomes of the error, format by format.

    Args:
        model: in evaluation mode and in fp32, by copies or at use (`wide_weights`). It is left as it was.
        labels: the token that follows each input token; -100 is not counted.
        formats: names of `number_formats.FORMATS`.
        loops: how deep, also past the trained depth.
        dynamics: of the same model, where known: what a loop does to a small change, for the sentence of why.
        reference: the fp32 run, of an unroll of these sequences that was made for something else, too.

    Returns:
        One record per format. A format that the machine or the model cannot run in is `not measured`, and says why.
    """
    if not formats:
        return []
    rows = rounded_rows(input_ids)
    ids, labels = input_ids[:rows], labels[:rows]
    if reference is None:
        reference = ReferenceRun(labels, loops)
        for state in unroll(model, ids, loops):
            if not reference.see(state):
                break
    if not reference.states:
        why = "The model is not finite in fp32 at loop 1 already: there is nothing to compare with."
        return [Rounding(name, "not measured", why) for name in formats]
    if is_narrow(reference.states[0]):
        why = "The model's own state is in half precision: there is nothing finer to compare with. Audit it in fp32."
        return [Rounding(name, "not measured", why) for name in formats]
    shared = _shared(model, ids, formats)
    return [_of_format(model, ids, labels, name, shared, reference, dynamics) for name in formats]


def rounded_rows(input_ids: Int[Tensor, "batch seq"]) -> int:
    """Return of how many sequences, from the first on, rounding is measured."""
    return max(1, ROUNDED_TOKENS // input_ids.shape[1])


class ReferenceRun:
    """The fp32 run: its states while they are finite, its exits' losses, and what the first loop started from.

    Args:
        labels: of the sequences that are measured; -100 is not counted.
        depth: loops of the unroll that it sees.
        token_loss: cross-entropy per token.
    """

    def __init__(
        self, labels: Int[Tensor, "batch seq"], depth: int, token_loss: TokenLoss = chunked_cross_entropy
    ) -> None:
        self.labels, self.depth, self.token_loss = labels, depth, token_loss
        self.start = torch.empty(0)
        self.states: list[Tensor] = []
        self.losses: list[float] = []
        self.scales: list[float] = []  # mean over tokens
        self._finite = True

    @torch.no_grad()
    def see(self, state: LoopState) -> bool:
        """Take the next state, of these sequences and maybe more after them; return whether all were finite so far."""
        if self._finite:
            rows = len(self.labels)
            hidden, self.start = state.hidden[:rows], state.context.embedded[:rows]
            losses = self.token_loss(state.model.head, state.features()[:rows], self.labels)
            loss = mean_loss(losses, self.labels)
            self._finite = math.isfinite(loss) and bool(torch.isfinite(hidden).all())
            if self._finite:
                self.states.append(hidden)
                self.losses.append(loss)
                self.scales.append(float(scale(hidden).mean()))
        return self._finite


def _shared(model: AbstractLoopedLM, ids: Tensor, formats: Sequence[str]) -> dict[int, int]:
    """The matrices of one loop, asked of the first sequence; none where no format rounds them alone."""
    if all(FORMATS[name].to_format is None for name in formats):
        return {}
    with torch.no_grad():
        first = next(iter(unroll(model, ids[:1], max(2, model.loops))))
    return shared_matrices(first)


def _of_format(
    model: AbstractLoopedLM,
    ids: Tensor,
    labels: Tensor,
    name: str,
    shared: Mapping[int, int],
    reference: ReferenceRun,
    dynamics: Sequence[LoopDynamics],
) -> Rounding:
    chosen = FORMATS[name]
    if chosen.to_format is not None and any(parameter.is_meta for parameter in model.parameters()):
        why = (
            f"Some weights are elsewhere until they are used, and {name} has to know which matrices every loop "
            "applies: load the model whole. bf16, fp16 and bf16-autocast can be measured as it is."
        )
        return Rounding(name, "not measured", why)
    if chosen.to_format is not None and not shared:
        why = "No matrix that every loop applies was found: its weights are not parameters, or take no gradient."
        return Rounding(name, "not measured", why)
    rows: list[tuple[RoundedLoop, Tensor]] = []
    ways = (False, True) if copies_are_large(model, name) else (True,)
    tries = [(copies, buffers) for copies in ways for buffers in (False, True)]
    # A forward may want its buffers in the type of its weights, or reach these in a way of its own.
    for copies, buffers in tries:
        try:
            with in_format(model, name, shared, buffers, copies):
                rows = list(_compared(model, ids, labels, reference, chosen.dtype))
            break
        except Exception as error:  # whatever a stranger's forward, or this machine, says of a type
            if (copies, buffers) == tries[-1] or chosen.to_format is not None:
                said = (
                    str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
                )
                return Rounding(name, "not measured", f"The model does not run in {name} here: {said}")
    records, added = [row for row, _ in rows], torch.stack([each for _, each in rows])
    found = judge_rounding(name, records, added, reference.scales, dynamics)
    if (last := len(records)) < reference.depth:
        return replace(found, why=f"{found.why} Beyond loop {last} the model is not finite in fp32 itself.")
    return found


def _compared(
    model: AbstractLoopedLM, ids: Tensor, labels: Tensor, reference: ReferenceRun, dtype: torch.dtype | None
) -> Iterator[tuple[RoundedLoop, Float[Tensor, " tokens"]]]:
    """Every loop's record, and the error of every token over what its loops have added."""
    before: Tensor | None = None
    states = unroll(model, ids, reference.depth)
    for index, (true, state) in enumerate(zip(reference.states, states, strict=False)):
        hidden, true = wide(state.hidden), wide(true)
        error = l2_norm(hidden - true)
        added = error / _added(true, wide(reference.start))
        loss = cross_entropy(state, labels)
        yield (
            RoundedLoop(
                loop=state.loop,
                state=float((error / l2_norm(true).clamp(min=1e-30)).mean()),
                added=float(added.mean()),
                direction=float(scale(direction(hidden) - direction(true)).mean()),
                cross_entropy=loss,
                excess=loss - reference.losses[index],
                stalled=_stalled(before, state.hidden, reference.states, index),
                overflowed=float((~torch.isfinite(hidden)).double().mean()),
                emptied=_emptied(state),
            ),
            added.flatten(),
        )
        before = state.hidden


def _added(true: Tensor, start: Tensor) -> Tensor:
    """What the loops have added to every token's start; never less than a thousandth of the state."""
    return torch.maximum(l2_norm(true - start), 1e-3 * l2_norm(true)).clamp(min=1e-30)


def _stalled(before: Tensor | None, hidden: Tensor, true: Sequence[Tensor], index: int) -> float:
    """The share of channels that a loop left as they were, of those that it moves in fp32."""
    if before is None:
        return 0.0
    moved = (true[index] - true[index - 1]).abs() > MOVES * true[index].abs()
    return float(((hidden == before) & moved).double().sum() / moved.sum().clamp(min=1))


def _emptied(state: LoopState) -> float:
    """The share of tokens whose readout is zeros though their state is not: a norm in fp16 past its largest number."""
    features = state.features()
    return float(((features == 0).all(dim=-1) & (state.hidden != 0).any(dim=-1)).double().mean())
