"""Injections: how the input enters every loop.

add: Bansal et al., arXiv 2202.05826. concat: Huginn's adapter, arXiv 2502.05171. write: the learned write that belongs
to the diagonal decay (Parcae, arXiv 2604.12946): the two are halves of one linear system, h ← exp(-dt·A)·h + dt·B e.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import injection_of
from loopscope.model.config.declarations import InjectionDeclaration
from loopscope.model.config.variants import INJECTIONS
from loopscope.model.variant import AbstractVariant, build_variant


class AbstractInjection(AbstractVariant):
    """Applied at the start of every loop, the first included.

    Attributes:
        declaration: what costs, audits and checks of a config ask. Every class has its own.
    """

    declaration: ClassVar[InjectionDeclaration]

    @abstractmethod
    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the state with the input in it.

        Args:
            hidden: the state as the carry left it.
            entry: the input: what `embed` returned, normalised where the config says so.
            step: the decay carry's step dt, where there is one.
        """


class AddInjection(AbstractInjection):
    """h + e. As the state grows, the input's share in it falls as 1 / s."""

    declaration = INJECTIONS.shipped["add"].declaration

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden + entry


class GatedInjection(AbstractInjection):
    """h + σ(W[h; e] + b)·e, one gate per channel. A large state saturates it: it is then all open or shut."""

    declaration = INJECTIONS.shipped["gated"].declaration

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * dim, dim)

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "GatedInjection":
        return cls(config.dim)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden + torch.sigmoid(self.gate(torch.cat([hidden, entry], dim=-1))) * entry


class ConcatInjection(AbstractInjection):
    """W[h; e], without a bias. Linear: it scales what is left of the state and turns it."""

    declaration = INJECTIONS.shipped["concat"].declaration

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * dim, dim, bias=False)

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "ConcatInjection":
        return cls(config.dim)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        return self.mix(torch.cat([hidden, entry], dim=-1))


class WriteInjection(AbstractInjection):
    """h + dt·(B e). B starts as the identity, under every initialisation."""

    declaration = INJECTIONS.shipped["write"].declaration

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.write = nn.Parameter(torch.eye(dim))

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "WriteInjection":
        return cls(config.dim)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        entry: Float[Tensor, "batch seq dim"],
        step: Float[Tensor, " dim"] | None,
    ) -> Float[Tensor, "batch seq dim"]:
        assert step is not None, "the config checks that a write has its decay"
        return hidden + step * nn.functional.linear(entry, self.write)


def build_injection(config: ModelConfig) -> AbstractInjection | None:
    """Return the injection that a config names, shipped or of the user's own, or None."""
    chosen = injection_of(config)
    if chosen is None:
        return None
    injection: AbstractInjection = build_variant(INJECTIONS, chosen)
    return injection
