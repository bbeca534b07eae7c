"""What a readout is: a map from H_k to the head's input, with one fact about scale."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class AbstractReadout(nn.Module, ABC):
    """Turns H_k into features for the head."""

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        """Features of loop `loop` (1-based) in an unroll of `loops`."""

    @abstractmethod
    def scale_exponent(self, loop: int, loops: int) -> float:
        """p such that scaling H_k by c scales the features by c^p (up to a norm's eps).

        0 means that the features, and so the cross-entropy, cannot see the scale (Lemma 1 of the paper).
        """
