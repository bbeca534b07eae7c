"""Looped models of one map, whose rounding is known in closed form."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from loopscope.audit.audit_report import BEYOND
from loopscope.audit.rounding import measure_rounding
from loopscope.recurrence import AbstractLoopedLM, LoopContext
from loopscope.results import Rounding

DIM = 16
TOKENS = torch.arange(12)[None]


class Toy(AbstractLoopedLM):
    """A looped model of one map. Its readout is softened, so that its loss is moderate whatever the map does."""

    def __init__(
        self,
        step: Callable[["Toy", Tensor, int, LoopContext], Tensor],
        start: Tensor | None = None,
        loops: int = 4,
        matrix: Tensor | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(12, DIM, generator=generator) if start is None else start.expand(12, DIM)
        self.table = nn.Parameter(rows.clone())
        self.matrix = nn.Parameter(torch.eye(DIM) if matrix is None else matrix)
        self.step, self.loops = step, loops

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.table[input_ids]

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return self.step(self, hidden, loop, context)

    def carry(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden

    def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return 0.01 * hidden.tanh()

    def head(self, features: Tensor) -> Tensor:
        return features


def rounding(model: Toy, name: str, loops: int | None = None) -> Rounding:
    (found,) = measure_rounding(model.eval(), TOKENS, TOKENS, [name], loops or BEYOND * model.loops)
    return found


def basis(eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
    """A symmetric matrix of these eigenvalues, and its eigenvectors in their order."""
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(3)))[0]
    return turn @ torch.diag(eigenvalues) @ turn.T, turn


def through_matrix(model: Toy, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
    return hidden @ model.matrix.T
