"""What a cache is held to: the exits of a small random text that is computed whole, and how far rounding moves them.

Texts of other lengths round otherwise, which a recurrence can carry on and enlarge. What that does without any cache is
no difference of a cache's.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.tracing.forward_runs import disagreement, dtype_of, example
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.numerics import wide
from loopscope.recurrence import unroll

ForeignModel = FamilyAdapter | TracedModel

READ_FIRST = 4
"""Tokens of the text that are read at once; the others come one by one."""

ROUNDINGS = 30
"""How much of what another length changes by rounding alone is still rounding."""


@dataclass(frozen=True)
class WholeText:
    """A small batch of texts, computed whole.

    Attributes:
        exits: logits of every loop.
        rounding: how far a shorter text moves them, by loop.
    """

    ids: Int[Tensor, "batch seq"]
    exits: list[Tensor]
    rounding: list[float]
    dtype: torch.dtype

    def difference(
        self, logits: Float[Tensor, "batch places vocab"], loop: int, places: Int[Tensor, "batch places"]
    ) -> str | None:
        """Return how an exit's logits at some places differ from the whole text's, in words; None: they agree."""
        whole = self.exits[loop - 1]
        own = whole.gather(1, places[..., None].expand(-1, -1, whole.shape[-1]))
        if bool((wide(logits) - wide(own)).abs().max() <= ROUNDINGS * self.rounding[loop - 1]):
            return None
        return disagreement(logits, own, self.dtype)


@torch.no_grad()
def whole_text(model: ForeignModel, loops: int) -> WholeText:
    """Return the exits of a small random batch at this depth; the module is in evaluation mode, its draws are fixed."""
    if isinstance(model, TracedModel):
        ids = model.interceptor.own.example(model.trained_count)
    else:
        ids = example(model.module, model.own_logits)
        model.own_start = None
    exits = [state.logits() for state in unroll(model, ids, loops)]
    rounding = [0.0] * loops
    for length in range(READ_FIRST + 1, ids.shape[1]):
        for state in unroll(model, ids[:, :length], loops):
            moved = wide(state.logits()) - wide(exits[state.loop - 1][:, :length])
            rounding[state.loop - 1] = max(rounding[state.loop - 1], float(moved.abs().max()))
    return WholeText(ids, exits, rounding, dtype_of(model.module))
