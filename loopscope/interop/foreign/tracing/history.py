"""What a followed block has put out so far in an unroll, as a chain that runs from the same state share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from loopscope.interop.foreign.tracing.answers import Answer


@dataclass(frozen=True)
class History:
    """The block's outputs up to a loop, as a chain: a run that goes on from a state shares what was before.

    Without its own state where that is held by nobody else and is read no more.
    """

    loop: int
    state: Tensor | None
    before: "History | None"
    side: Mapping[Any, Tensor] = field(default_factory=dict)  # what else the block returned that goes on

    def states(self) -> dict[int, Answer]:
        """Return the block's outputs, by loop."""
        earlier = states_of(self.before)
        return earlier if self.state is None else {**earlier, self.loop: Answer(self.state, self.side)}


def states_of(history: History | None) -> dict[int, Answer]:
    """Return the block's outputs in a history, by loop; none of none."""
    return {} if history is None else history.states()
