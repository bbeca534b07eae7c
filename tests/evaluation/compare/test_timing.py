"""Times per token: one per depth and model, growing with the work, taken alternately."""

from typing import Any

import pytest
import torch

from loopscope.evaluation.compare.timing import seconds_per_token
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from tests.model.fixtures import TINY


def test_more_loops_take_longer() -> None:
    model = LoopedTransformer(ModelConfig(**{**TINY, "dim": 64}))
    found = seconds_per_token({"one": (model, 8)}, torch.zeros(8, 16, dtype=torch.int64), rounds=2)
    assert len(found["one"]) == 8
    assert found["one"][7] > 2 * found["one"][0] > 0


def test_models_take_turns_and_the_least_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    models = {name: LoopedTransformer(ModelConfig(**TINY)) for name in "ab"}

    def run(model: Any, ids: torch.Tensor, loops: int) -> None:
        order.append((next(name for name, known in models.items() if known is model), loops))

    def timed(device: torch.device, call: Any) -> float:
        call()
        clock[0] += 1
        return 1000 - clock[0] if order.count(order[-1]) == 2 else 2000.0

    monkeypatch.setattr("loopscope.evaluation.compare.timing.last_logits", run)
    monkeypatch.setattr("loopscope.evaluation.compare.timing.seconds", timed)
    found = seconds_per_token(
        {"a": (models["a"], 2), "b": (models["b"], 1)}, torch.zeros(2, 5, dtype=torch.int64), 3
    )
    assert order == [("a", 1), ("a", 2), ("b", 1)] * 4
    assert found == {"a": ((1000 - 4) / 10, (1000 - 5) / 10), "b": ((1000 - 6) / 10,)}
