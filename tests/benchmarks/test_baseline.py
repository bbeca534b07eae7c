"""The baseline of `benchmarks.train_step`: the same model, losses and steps as ours, by code of its own."""

import argparse
from typing import Any

import pytest
import torch

from benchmarks.baseline import BaselineLooped, baseline_step
from benchmarks.steps import KINDS, peak_memory
from loopscope.config import recipe
from loopscope.model import LoopedTransformer, ModelConfig
from loopscope.objectives import build_objective
from loopscope.training import TrainingStep, build_optimizer

STEPS, BATCH, SEQ, VOCABULARY = 20, 4, 12, 29
TINY = {"dim": 16, "heads": 2, "layers": 2, "loops": 3, "vocabulary": VOCABULARY, "sequence": SEQ}


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Counting upwards: something to learn."""
    generator = torch.Generator().manual_seed(step)
    tokens = (torch.randint(VOCABULARY, (BATCH, 1), generator=generator) + torch.arange(SEQ + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_its_losses_are_those_of_our_own_step(precision: Any, tolerance: float) -> None:
    config = recipe("laptop", "dense/rmsnorm")
    training = config.training.model_copy(
        update={"batch": BATCH, "learning_rate": 1e-2, "decay": "published"}
    )
    torch.manual_seed(0)
    ours = LoopedTransformer(ModelConfig(**TINY)).train()
    theirs = BaselineLooped.like(ours)
    take = baseline_step(theirs, training, precision)
    step = TrainingStep(
        ours,
        build_objective(config.objective),
        build_optimizer(ours, training),
        training,
        torch.device("cpu"),
        precision,
    )
    pairs = [(float(take(*batch(n))), float(step(*batch(n), (3,))[0].total)) for n in range(STEPS)]
    for baseline, own in pairs:
        assert baseline == pytest.approx(own, rel=tolerance)
    assert pairs[-1][0] < 0.9 * pairs[0][0]  # the steps moved it


def test_a_model_of_another_architecture_is_refused() -> None:
    model = LoopedTransformer(ModelConfig(**TINY, positions="rotary"))
    with pytest.raises(RuntimeError, match="positions"):
        BaselineLooped.like(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours fp32", "baseline fp32", "masked fp32"])
def test_the_memory_of_a_step_is_measured(name: str) -> None:
    shape = {"size": "laptop", "batch": 1, "sequence": 32, "dropout": None, "compile": False}
    options = argparse.Namespace(**shape, checkpointing="none")
    assert name in KINDS
    assert peak_memory(name, options, torch.device("cpu")) > 0
