"""What a cache is held to: the exits of a small random text that is computed whole, and how far rounding moves them.

Texts of other lengths round otherwise, which a recurrence can carry on and enlarge. What that does without any cache is
no difference of a cache's.
"""

from functools import cached_property

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


class WholeText:
    """A small random batch of texts, computed whole. The module is in evaluation mode, its draws are fixed.

    Attributes:
        exits: logits of every loop up to this depth.
    """

    @torch.no_grad()
    def __init__(self, model: ForeignModel, loops: int) -> None:
        self._model, self._loops = model, loops
        if isinstance(model, TracedModel):
            self.ids = model.interceptor.own.example(model.trained_count)
        else:
            self.ids = example(model.module, model.own_logits)
            model.own_start = None
        self.exits = [state.logits() for state in unroll(model, self.ids, loops)]

    def difference(
        self, logits: Float[Tensor, "batch places vocab"], loop: int, places: Int[Tensor, "batch places"]
    ) -> str | None:
        """Return how an exit's logits at some places differ from the whole text's, in words; None: they agree."""
        whole = self.exits[loop - 1]
        own = whole.gather(1, places[..., None].expand(-1, -1, whole.shape[-1]))
        said = disagreement(logits, own, dtype_of(self._model.module))
        if said is None or bool(
            (wide(logits) - wide(own)).abs().max() <= ROUNDINGS * self.rounding[loop - 1]
        ):
            return None
        return said

    @cached_property
    @torch.no_grad()
    def rounding(self) -> list[float]:
        """How far shorter texts move the exits, by loop."""
        moved = [0.0] * self._loops
        for length in range(READ_FIRST + 1, self.ids.shape[1]):
            for state in unroll(self._model, self.ids[:, :length], self._loops):
                gap = wide(state.logits()) - wide(self.exits[state.loop - 1][:, :length])
                moved[state.loop - 1] = max(moved[state.loop - 1], float(gap.abs().max()))
        return moved
