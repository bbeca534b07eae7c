"""Parameter groups and learning rates."""

import pytest

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.training.config import TrainingConfig
from loopscope.training.optim import build_optimizer, learning_rate


@pytest.mark.parametrize("tied", [True, False])
def test_only_matrices_decay_by_default(tied: bool) -> None:
    model = LoopedTransformer(
        ModelConfig(
            dim=16, heads=2, loops=2, vocabulary=20, sequence=8, tied=tied, carry=("rmsnorm", "damping")
        )
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, kept = build_optimizer(model, TrainingConfig()).param_groups
    assert decayed["weight_decay"] == 0.01
    assert kept["weight_decay"] == 0.0
    shown = {names[parameter] for parameter in decayed["params"]}
    assert all(name.startswith("layers.") or name == "unembedding.weight" for name in shown)
    assert not any("norm" in name for name in shown)
    assert ("unembedding.weight" in shown) is not tied
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_published_grouping_decays_everything() -> None:
    model = LoopedTransformer(ModelConfig(dim=16, heads=2, loops=2, vocabulary=20, sequence=8))
    (group,) = build_optimizer(model, TrainingConfig(decay="published")).param_groups
    assert len(group["params"]) == len(list(model.parameters()))


def test_schedules() -> None:
    cosine = TrainingConfig(schedule="cosine", warmup=10, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(step, 110, cosine) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    constant = TrainingConfig(learning_rate=3e-4)
    assert {learning_rate(step, 50, constant) for step in range(50)} == {3e-4}
