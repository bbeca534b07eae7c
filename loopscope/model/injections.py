"""Injections: how the input enters every loop.

add: Bansal et al., arXiv 2202.05826. concat: Huginn's adapter, arXiv 2502.05171. write: the learned write that belongs
to the diagonal decay (Parcae, arXiv 2604.12946): the two are halves of one linear system, h ← exp(-dt·A)·h + dt·B e.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig


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


class AddInjection(AbstractInjection):
    """h + e. As the state grows, the input's share in it falls as 1 / s."""

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden + entry


class GatedInjection(AbstractInjection):
    """h + σ(W[h; e] + b)·e, one gate per channel. A large state saturates it: it is then all open or shut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * dim, dim)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden + torch.sigmoid(self.gate(torch.cat([hidden, entry], dim=-1))) * entry


class ConcatInjection(AbstractInjection):
    """W[h; e], without a bias. Linear: it scales what is left of the state and turns it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * dim, dim, bias=False)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return self.mix(torch.cat([hidden, entry], dim=-1))


class WriteInjection(AbstractInjection):
    """h + dt·(B e). B starts as the identity, under every initialisation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.write = nn.Parameter(torch.eye(dim))

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        assert step is not None, "the config checks that a write has its decay"
        return hidden + step * nn.functional.linear(entry, self.write)


def build_injection(config: ModelConfig) -> AbstractInjection | None:
    """The injection a config names, or None."""
    match config.injection.kind:
        case "none":
            return None
        case "add":
            return AddInjection()
        case "gated":
            return GatedInjection(config.dim)
        case "concat":
            return ConcatInjection(config.dim)
        case "write":
            return WriteInjection(config.dim)
