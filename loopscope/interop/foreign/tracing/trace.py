"""What a run of a foreign forward leaves behind: the calls of its parts, without the states they were called with."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.tracing.calls import Call


@dataclass
class Trace:
    """One whole run of the module's forward: what its parts were called with."""

    input_ids: Int[Tensor, "batch seq"]
    loop_count: int | None  # the number of loops the forward was set to; None where it was left alone
    calls: list[list[Call]] = field(default_factory=list)  # by loop and layer, without their states
    others: dict[nn.Module, Call] = field(default_factory=dict)  # last calls of readout and gate parts
    states: dict[int, Tensor] = field(default_factory=dict)  # the block's outputs, where they were asked for
    before_head: dict[nn.Module, list[Any]] = field(
        default_factory=dict
    )  # what precedes the head, where remembered

    @property
    def depth(self) -> int:
        """Loops that the forward ran."""
        return len(self.calls)

    def up_to(self, loops: int) -> "Trace":
        """Return the trace of a forward that is set to fewer loops, whose states do not depend on their number."""
        return replace(self, loop_count=loops, calls=self.calls[:loops])


def probes(trace: Trace) -> dict[int, Tensor]:
    """Return states to try at the first, a middle and the last but one loop: the trace's own, perturbed."""
    loops = sorted({1, (trace.depth + 1) // 2, trace.depth - 1})
    draws = torch.Generator().manual_seed(1)
    states = {}
    for loop in loops:
        state = trace.states[loop].detach()
        states[loop] = perturbed(state, draws)
    return states


def perturbed(
    state: Float[Tensor, "batch seq dim"], draws: torch.Generator
) -> Float[Tensor, "batch seq dim"]:
    """Return a state larger than this one, in another direction; no token of it is zero."""
    noise = torch.randn(state.shape, generator=draws).to(state)
    return 1.3 * state + 0.3 * state.square().mean().sqrt() * noise
