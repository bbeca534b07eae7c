"""What an extra term is: something a loss adds that needs more of an unroll than cross-entropies and mean squares."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

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
        """One loop's state. Called for every loop, in order."""

    @abstractmethod
    def terms(
        self, labels: Int[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"], token_loss: TokenLoss
    ) -> Mapping[str, Float[Tensor, ""]]:
        """Named, weighted terms, once the unroll is over."""


class AbstractExtra(ABC):
    """Makes one collector per unroll. Its terms have names of their own, so that an audit lists them apart."""

    name: str
    """What reports call it."""

    @abstractmethod
    def collector(self, loops: int, training: bool, before: RandomState) -> AbstractCollector:
        """An empty collector for an unroll of `loops`. Outside training nothing may be drawn at random.

        Args:
            before: random numbers as they stood before the unroll began.
        """
