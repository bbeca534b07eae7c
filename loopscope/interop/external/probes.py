"""States to try a followed forward at, other than those that it has."""

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.interop.external.trace import Trace


def probes(trace: Trace) -> dict[int, Tensor]:
    """States to try at the first, a middle and the last but one loop: larger than the real ones, and turned."""
    loops = sorted({1, (trace.depth + 1) // 2, trace.depth - 1})
    draws = torch.Generator().manual_seed(1)
    found = {}
    for loop in loops:
        state = trace.states[loop].detach()
        found[loop] = turned(state, draws)
    return found


def turned(state: Float[Tensor, "batch seq dim"], draws: torch.Generator) -> Float[Tensor, "batch seq dim"]:
    """A state larger than this one, in another direction; no token of it is zero."""
    noise = torch.randn(state.shape, generator=draws).to(state)
    return 1.3 * state + 0.3 * state.square().mean().sqrt() * noise
