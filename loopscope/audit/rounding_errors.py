"""How far a run in another number format is off the fp32 run: every loop's state, direction and exit."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.audit.expansion import direction
from loopscope.audit.interventions import cross_entropy
from loopscope.audit.rounding_reference import ReferenceRun
from loopscope.numerics import l2_norm, scale, wide
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll
from loopscope.results import RoundedLoop

MOVES = 1e-5
"""Relative change of a channel that counts as one: fp32's own rounding is below it, half of bf16's last digit above."""
SHRUNK = 2.0
"""What loops have added counts as so many times the state at most: one that has shrunk is measured by itself."""


@dataclass(frozen=True)
class RoundedRun:
    """A run in another number format, as long as fp32 is finite.

    Attributes:
        loops: of loops 1, 2, …
        added: every token's error, over the most that its loops have added so far.
        state: every token's error, over its state.
    """

    loops: tuple[RoundedLoop, ...]
    added: Float[Tensor, "loops tokens"]
    state: Float[Tensor, "loops tokens"]

    def differs(self) -> bool:
        """Return whether any state is another than in fp32."""
        return any(row.state != 0 for row in self.loops)


def compared(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    reference: ReferenceRun,
) -> RoundedRun:
    """Run a model as it is now, in whatever format, and compare every loop with the fp32 run of the same texts."""
    rows: list[RoundedLoop] = []
    of_added: list[Tensor] = []
    of_state: list[Tensor] = []
    most: Tensor | None = None  # that loops have added to every token
    before: Tensor | None = None
    fp32_before = reference.start
    states = unroll(model, input_ids, reference.depth)
    for index, (fp32, state) in enumerate(zip(reference.states, states, strict=False)):
        hidden, true = wide(state.hidden), wide(fp32)
        error, size = l2_norm(hidden - true), l2_norm(true)
        here = l2_norm(true - wide(reference.start))
        most = here if most is None else torch.maximum(most, here)
        relative = error / size.clamp(min=1e-30)
        added = error / torch.minimum(torch.maximum(most, 1e-3 * size), SHRUNK * size).clamp(min=1e-30)
        loss = cross_entropy(state, labels)
        before = state.context.embedded if before is None else before
        rows.append(
            RoundedLoop(
                loop=state.loop,
                state=float(relative.mean()),
                added=float(added.mean()),
                direction=float(scale(direction(hidden) - direction(true)).mean()),
                cross_entropy=loss,
                excess=loss - reference.losses[index],
                stalled=_stalled(before, state.hidden, fp32_before, fp32),
                overflowed=float((~torch.isfinite(hidden)).double().mean()),
                emptied=_emptied(state, reference.read[index]),
            )
        )
        of_added.append(added.flatten())
        of_state.append(relative.flatten())
        before, fp32_before = state.hidden, fp32
    return RoundedRun(tuple(rows), torch.stack(of_added), torch.stack(of_state))


def _stalled(before: Tensor, hidden: Tensor, fp32_before: Tensor, fp32: Tensor) -> float:
    """The share of channels that a loop left as they were, of those that it moves in fp32. One at 0 does not count."""
    moved = (fp32 - fp32_before).abs() > MOVES * fp32.abs()
    still = (hidden == before) & (hidden != 0) & torch.isfinite(hidden)
    return float((still & moved).double().sum() / moved.sum().clamp(min=1))


def _emptied(state: LoopState, read: Bool[Tensor, "batch seq"]) -> float:
    """The share of tokens whose readout is zeros where fp32's is not: a norm past fp16's largest number, or below its
    smallest.
    """
    return float(((state.features() == 0).all(dim=-1) & read).double().mean())
