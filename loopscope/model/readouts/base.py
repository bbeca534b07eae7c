"""What a readout is: a map from H_k to the head's input, and what it declares of itself."""

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from loopscope.model.config.declarations import Exponent, ReadoutDeclaration
from loopscope.model.variant import AbstractVariant


class AbstractReadout(AbstractVariant):
    """Turns H_k into features for the head.

    Attributes:
        declaration: what costs, audits and checks of a config ask. Every class has its own.
        norm: the norm over channels, in a readout that declares one.
        exponents: `scale_exponent` before the last loop and at it, as declared for the config it was built from.
    """

    declaration: ClassVar[ReadoutDeclaration]
    exponents: tuple[Exponent, Exponent]

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the features of loop `loop` (1-based) in an unroll of `loops`: what the head reads."""

    def scale_exponent(self, loop: int, loops: int) -> Exponent:
        """Return p such that scaling H_k by c scales the features by c^p (up to a norm's eps).

        0 means that the features, and so the cross-entropy, cannot see the scale (Lemma 1 of the paper). As declared;
        a readout that learns its exponent says here what it has learned.
        """
        return self.exponents[loop == loops]
