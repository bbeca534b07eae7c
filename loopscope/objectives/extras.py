"""What an extra term is: something a loss adds that needs more of an unroll than cross-entropies and mean squares."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.guards import RandomState
from loopscope.objectives.token_loss import Head
from loopscope.recurrence import LoopState

TokenLoss = Callable[[Head, Tensor, Tensor], Tensor]
"""Cross-entropy per token from a head, features and labels."""


class AbstractCollector(ABC):
    """Sees the states of one unroll as they pass, and keeps what its terms need, no more."""

    @abstractmethod
    def see(self, state: LoopState) -> None:
        """Take one loop's state. Called for every loop of an unroll, in order."""

    @abstractmethod
    def terms(
        self, labels: Int[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"], token_loss: TokenLoss
    ) -> Mapping[str, Float[Tensor, ""]]:
        """Return the named, weighted terms of the loss, once the unroll is over."""


class AbstractExtra(ABC):
    """An extra term of a loss: makes one collector per unroll.

    Its terms have names of their own, so that an audit lists them apart.
    """

    name: str
    """What reports call it."""
    per_sequence: ClassVar[bool] = False
    """Whether its terms are means over sequences; otherwise they are over the tokens that count."""
    differentiates: ClassVar[bool] = False
    """Whether its terms take gradients on the way forward."""
    agree: Callable[[int], int] = staticmethod(int)
    """Makes one number of what several processes of a training have drawn."""

    @abstractmethod
    def collector(self, loops: int, training: bool, before: RandomState) -> AbstractCollector:
        """Return an empty collector for an unroll of `loops`. Outside training nothing may be drawn at random.

        Args:
            before: random numbers as they stood before the unroll began.
        """
