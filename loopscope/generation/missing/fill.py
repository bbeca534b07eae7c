"""fill: the exited state's own keys and values stand in at every deeper loop.

A token that left at loop e is treated as if no deeper loop changed it: for every k > e, H_{k-1} is taken to be H_e.
What is projected is what loop k would give its first layer (the carry, the injection, the loop embedding applied to
H_e); every layer's own norm and key and value rows read that same state, and neither attention nor feed-forward runs.
As in CALM (Schuster et al., "Confident Adaptive Language Modeling", arXiv 2207.07061), for loops in place of layers.

Costs one projection per layer and skipped loop at the time of the exit; keeps nothing beside the cache.
"""

from loopscope.generation.missing.base import AbstractMissing
from loopscope.recurrence import LoopState


class Fill(AbstractMissing):
    """Strategy `fill`, approximate: deeper loops see what the token was when it left."""

    name = "fill"

    def on_exit(self, state: LoopState) -> None:
        for loop in range(state.loop + 1, self.loops + 1):
            entering = self.model.carry(state.hidden, loop - 1, state.context)
            self.model.remember(entering, loop, state.context)
        self.copy_exits(state)
