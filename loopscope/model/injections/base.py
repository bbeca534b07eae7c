"""What an injection is: a map from the state and the input to what the shared layers read."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class AbstractInjection(nn.Module, ABC):
    """Applied at the start of every loop, the first included."""

    @abstractmethod
    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        """The state with the input in it.

        Args:
            hidden: the state as the carry left it.
            entry: the input: what `embed` returned, normalised where the config says so.
            step: the decay carry's step dt, where there is one.
        """
