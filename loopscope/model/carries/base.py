"""What a carry is: a step between H_k and the next loop's input."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class AbstractCarry(nn.Module, ABC):
    """Applied between loops, never after the last one."""

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "batch seq dim"], loop: int) -> Float[Tensor, "batch seq dim"]:
        """H_k of loop k = `loop` on its way to loop k + 1."""

    @abstractmethod
    def removes_scale(self) -> bool:
        """Whether the output no longer depends on the input's scale (up to a norm's eps)."""
