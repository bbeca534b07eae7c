"""Looped models of maps whose fate is known in closed form, a text that they predict, and what becomes of its loss."""

import math

import torch
from torch import Tensor

from loopscope.evaluation import depth_curves, prognose
from loopscope.numerics import scale
from loopscope.recurrence import AbstractLoopedLM, LoopContext
from loopscope.results import Prognosis

VOCABULARY, DIM, LOOPS = 40, 16, 4


class Toy(AbstractLoopedLM):
    """A state that a given map moves from loop to loop, read with or without its size."""

    def __init__(self, kind: str, blind: bool = True, loops: int = LOOPS) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.loops, self.kind, self.blind = loops, kind, blind
        self.table = torch.nn.Parameter(torch.randn(VOCABULARY, DIM, generator=generator))
        self.away = torch.randn(VOCABULARY, DIM, generator=generator)

    def embed(self, input_ids: Tensor) -> Tensor:
        start = self.table[input_ids]
        return start + 2 * self.away[input_ids] if self.kind == "approaching" else start

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        start, away = self.table[context.input_ids], self.away[context.input_ids]
        match self.kind:
            case "contracting":  # to a fixed point, a third of the way left each time
                return start + 0.3 * away + (hidden - start - 0.3 * away) / 3
            case "rotating":  # turns by as much in every loop
                one, other = hidden[..., ::2], hidden[..., 1::2]
                cos, sin = math.cos(0.25), math.sin(0.25)
                return torch.stack([cos * one - sin * other, sin * one + cos * other], dim=-1).flatten(-2)
            case "wandering":  # turns too, and by little
                one, other = hidden[..., ::2], hidden[..., 1::2]
                cos, sin = math.cos(0.03), math.sin(0.03)
                return torch.stack([cos * one - sin * other, sin * one + cos * other], dim=-1).flatten(-2)
            case "approaching":  # from afar to what the head reads best, a tenth of the way in each loop
                return start + 0.9 * (hidden - start)
            case "expanding":  # what leads away from the start is 1.8 times as much in every loop
                return start + 0.01 * away + 1.8 * (hidden - start)
            case "growing":  # its size alone
                return 1.3 * hidden
            case "swelling":  # until fp32 has no number for its square, at loop 15
                return 20 * hidden
            case "flipping":  # there and back: even depths are alike, and odd ones
                return torch.cat([-hidden[..., :4], hidden[..., 4:]], dim=-1)
        raise AssertionError(self.kind)

    def carry(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden

    def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden / scale(hidden)[..., None] if self.blind else hidden

    def head(self, features: Tensor) -> Tensor:
        return features @ self.table.T

    def declared_exponent(self, loop: int, loops: int) -> float:
        return 0.0 if self.blind else 1.0


def text() -> tuple[Tensor, Tensor]:
    """Ids, each followed by itself three times in four: what a head that reads its own start predicts well."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(VOCABULARY, (8, 64), generator=generator)
    other = torch.randint(VOCABULARY, (8, 64), generator=generator)
    return ids, torch.where(torch.rand(8, 64, generator=generator) < 0.75, ids, other)


def told_and_true(model: AbstractLoopedLM) -> tuple[Prognosis, float, float]:
    ids, labels = text()
    losses = [row.loss for row in depth_curves(model, [(ids, labels)], 1.0, 4 * model.loops)[0].per_loop]
    changes = [losses[times * model.loops - 1] - losses[model.loops - 1] for times in (2, 4)]
    return prognose(model, ids, labels), *changes
