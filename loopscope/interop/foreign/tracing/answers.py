"""What loops that are past are answered with when a forward runs again: the state, and what goes on beside it."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from loopscope.interop.foreign.tracing.calls import entries_of, state_of, with_entries, with_state


@dataclass
class Position:
    """Where a run is in its block's calls: loop from 1, layer from 0."""

    loop: int = 0
    layer: int = -1


@dataclass(frozen=True)
class Answer:
    """What the block put out at one loop.

    Attributes:
        state: H_k.
        side: what else it returned that the next loop reads, by key or place in what it returned.
    """

    state: Tensor
    side: Mapping[Any, Tensor]

    @staticmethod
    def of(output: Any, keys: Container[Any]) -> "Answer":
        """Take state and side out of what the block returned."""
        return Answer(state_of(output), {k: v for k, v in entries_of(output).items() if k in keys})


EarlierStates = Mapping[int, Tensor | Answer]
"""The block's outputs by loop; a state alone leaves what is beside it as it was."""


def answered(output: Any, given: Tensor | Answer) -> Any:
    """Return what the block returned, of the structure it had, with another state, and side where one is given."""
    if isinstance(given, Tensor):
        return with_state(output, given)
    return with_entries(with_state(output, given.state), given.side)
