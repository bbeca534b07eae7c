"""Shortcut consistency: a shorter unroll is trained to say what the whole one says.

As LoopFormer (Jeddi et al., ICLR 2026): a depth s < R is drawn per step; the loss gains the cross-entropy of the
unroll of s loops, and the mean squared distance of its readout features from those of R loops, which are held fixed.
Where a shorter unroll is the start of a longer one, loop s of this very unroll is read, for one more readout and
head; where states know their depth (`depth_conditioned`), a second unroll of s loops runs.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.guards import RandomState
from loopscope.numerics import wide
from loopscope.objectives.extras import AbstractCollector, AbstractExtra, TokenLoss
from loopscope.objectives.placements import mean_over
from loopscope.recurrence import LoopState, unroll


class ShortcutConsistency(AbstractExtra):
    """Extra terms that train a shorter unroll to say what the whole one says (LoopFormer).

    They are the features' distance (`shortcut_consistency`) and the shorter unroll's `shortcut_cross_entropy`.
    """

    name = "shortcut"

    def __init__(self, weight: float, loss_weight: float) -> None:
        self.weight = weight
        self.loss_weight = loss_weight

    def collector(self, loops: int, training: bool, before: RandomState) -> AbstractCollector:
        # The CPU's generator, which the training loop seeds in every step: no waiting for a device.
        short = self.agree(int(torch.randint(1, loops, ()))) if training and loops > 1 else max(1, loops // 2)
        return _Shortcut(self, short if loops > 1 else None, before)


class _Shortcut(AbstractCollector):
    def __init__(self, settings: ShortcutConsistency, short: int | None, before: RandomState) -> None:
        self.settings = settings
        self.short = short
        self.before = before
        self.short_state: LoopState | None = None
        self.last: LoopState | None = None

    def see(self, state: LoopState) -> None:
        if state.loop == self.short and not state.model.depth_conditioned:
            # Its readout must take loop s for the last of its unroll.
            self.short_state = replace(state, context=replace(state.context, loops=state.loop))
        if state.is_last:
            self.last = state

    def terms(
        self, labels: Int[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"], token_loss: TokenLoss
    ) -> Mapping[str, Float[Tensor, ""]]:
        assert self.last is not None, "an unroll has a last loop"
        if self.short is None:  # one loop has no shorter way
            return {}
        state = self.short_state
        if state is None:
            states = unroll(self.last.model, self.last.context.input_ids, self.short)
            # The same H_0 where it is noise, and the same dropout of the input: only the depth differs.
            with self.before.again():
                state = deque(states, maxlen=1)[0]
        features = state.features()
        with torch.no_grad():
            target = wide(self.last.features())
        distance = (wide(features) - target).square().mean(dim=-1)
        terms = {"shortcut_consistency": self.settings.weight * mean_over(distance, counted)}
        if self.settings.loss_weight > 0:
            loss = mean_over(token_loss(state.model.head, features, labels), counted)
            terms["shortcut_cross_entropy"] = self.settings.loss_weight * loss
        return terms
