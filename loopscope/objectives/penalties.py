"""Penalties: loss terms that read the state's scale directly, whatever the readout hides."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


class AbstractPenalty(ABC):
    """A term on the loops' mean squares of H."""

    name: str

    def __init__(
        self, weight: float, each: bool = False, loop_weights: Sequence[float] | None = None
    ) -> None:
        self.weight = weight
        self.each = each
        self.loop_weights = loop_weights

    def __call__(self, mean_square: Float[Tensor, " loops"]) -> Float[Tensor, ""]:
        """The weighted term: of the mean over loops, or the (weighted) mean of one term per loop."""
        if not self.each:
            return self.weight * self.term(mean_square.mean())
        per_loop = self.term(mean_square)
        if self.loop_weights is None:
            return self.weight * per_loop.mean()
        share = per_loop.new_tensor(self.loop_weights)
        return self.weight * (share * per_loop).sum() / share.sum()

    @abstractmethod
    def term(self, mean_square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the unweighted penalty of a mean square of H."""


class NormPenalty(AbstractPenalty):
    """Penalty on the state's mean square itself, over loops, tokens and channels."""

    name = "norm_penalty"

    def term(self, mean_square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return mean_square


class ScaleAnchor(AbstractPenalty):
    """Penalty on the squared distance of the state's RMS from a target."""

    name = "scale_anchor"

    def __init__(
        self,
        weight: float,
        target: float = 1.0,
        each: bool = False,
        loop_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(weight, each, loop_weights)
        self.target = target

    def term(self, mean_square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return (mean_square.sqrt() - self.target).square()
