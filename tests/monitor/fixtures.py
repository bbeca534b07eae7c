"""What tests of the scale monitor watch: a tiny training, and models of scales that are given."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.monitor.growth import FEWEST
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.objectives.objective import Objective
from loopscope.recurrence import AbstractLoopedLM, unroll

VOCABULARY, SEQUENCE, LOOPS = 17, 12, 4


def make(**settings: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 2, "layers": 1, "loops": LOOPS, "vocabulary": VOCABULARY}
    return LoopedTransformer(
        ModelConfig(**{**values, "sequence": SEQUENCE, "initialisation": "published", **settings})
    )


def batch(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """Counting upwards modulo the vocabulary: learnable within tens of steps."""
    start = torch.randint(VOCABULARY, (size, 1), generator=torch.Generator().manual_seed(step))
    tokens = (start + torch.arange(SEQUENCE + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def learn(
    model: AbstractLoopedLM,
    objective: Objective,
    monitor: ScaleMonitor | None = None,
    steps: int = 60,
    bf16: bool = False,
    inside: bool = False,
) -> list[float]:
    """A training loop such as anybody writes; `inside` calls the monitor while gradients and autocast are there."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(1, steps + 1):
        input_ids, labels = batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = objective(unroll(model, input_ids), labels).total
            if monitor and inside:
                monitor.step(step, input_ids, labels)
        loss.backward()
        optimizer.step()
        if monitor and not inside:
            monitor.step(step, input_ids, labels)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


class Clock:
    """Seconds that pass where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sized(AbstractLoopedLM):
    """A model whose state has the scale that the test says, unseen by its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.loops = 2
        self.size = 1.0
        self.table = nn.Embedding(VOCABULARY, 16)

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.size * nn.functional.rms_norm(self.table(input_ids), (16,))

    def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
        return hidden

    def carry(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
        return hidden

    def readout(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
        return nn.functional.rms_norm(hidden, (16,))

    def head(self, features: Tensor) -> Tensor:
        return features @ self.table.weight.T


def watch(
    sizes: Sequence[float], budget: float | None = None, steps: int | None = None
) -> tuple[ScaleMonitor, list[str]]:
    """A monitor every 20 steps of a model with these scales, and what it said."""
    model, said = Sized(), list[str]()
    monitor = ScaleMonitor(model, budget=budget, tell=said.append, clock=Clock(), steps=steps)
    for check, size in enumerate(sizes):
        model.size = size
        monitor.step(max(20 * check, 1), *batch(1))
    assert [check.rms[-1] for check in monitor.history] == pytest.approx(sizes, rel=1e-3)
    assert {check.verdict for check in monitor.history[FEWEST - 1 :]} <= {"blind", None}
    return monitor, said
