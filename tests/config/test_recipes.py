"""What recipes say: conditions by name, lengths, the published settings, and where a run starts."""

import math

import pytest
import torch

from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.config.sizes import DEFAULT_SIZE, SIZES
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll


def test_a_condition_is_what_its_name_says() -> None:
    for over in (
        {"model": {"readout": {"kind": "raw"}}},
        {"objective": {"norm_penalty": {"weight": 0.1}}},
        {"model": {"carry": ["rmsnorm"]}},
    ):
        with pytest.raises(ValueError, match=r"condition 'dense/rmsnorm' is contradicted.*name of your own"):
            recipe("laptop", "dense/rmsnorm", over)
    own = {
        "model": {"readout": {"kind": "alpha", "learned": True}},
        "objective": {"placement": "dense", "scale_anchor": {"weight": 0.1}},
    }
    config = recipe("laptop", "my-anchor", own)
    assert (config.condition, config.objective.scale_anchor.weight) == ("my-anchor", 0.1)
    assert recipe("laptop", "dense/alpha", {"model": {"readout": {"alpha": 0.2}}}).model.readout.alpha == 0.2


def test_steps_replace_the_epochs_of_a_recipe() -> None:
    config = recipe("published-44m", over={"training": {"steps": 5}})
    assert (config.training.steps, config.training.epochs) == (5, None)


def test_published_hyperparameters() -> None:
    training = recipe("published-44m").training
    assert (training.batch, training.learning_rate, training.weight_decay) == (64, 3e-4, 0.01)
    assert (training.epochs, training.clip, training.schedule, training.decay) == (
        4,
        1.0,
        "constant",
        "published",
    )
    model = recipe("published-129m").model
    assert (model.dim, model.heads, model.layers, model.loops) == (768, 12, 12, 4)
    assert (model.sequence, model.vocabulary, model.dropout) == (256, 20_000, 0.1)
    assert recipe("published-129m").training.batch == 32
    assert recipe("published-129m").data.stride == 128


def test_only_sizes_that_reproduce_the_paper_start_as_published() -> None:
    starts = {size: recipe(size).model.initialisation for size in SIZES}
    published = {"laptop", "published-44m", "published-129m"}
    assert {size for size, start in starts.items() if start == "published"} == published
    assert set(starts.values()) == {"scaled", "published"}
    assert recipe().size == DEFAULT_SIZE == "small"
    assert recipe().data.tokenizer.kind == "bpe"  # loses no text
    assert RunConfig().model.initialisation == "scaled"
    small, laptop = (
        recipe(size).model.model_copy(update={"initialisation": "scaled"}) for size in ("small", "laptop")
    )
    assert small == laptop


def test_a_first_loss_is_that_of_guessing() -> None:
    torch.manual_seed(0)
    ids = torch.randint(4096, (2, 33))
    losses = {}
    for size in ("small", "laptop"):
        config = recipe(size)
        states = unroll(LoopedTransformer(config.model), ids[:, :-1])
        losses[size] = float(build_objective(config.objective)(states, ids[:, 1:]).total.detach())
    assert losses["small"] == pytest.approx(math.log(4096), rel=0.05)
    assert losses["laptop"] > 3 * math.log(4096)


def test_a_longer_run_is_evaluated_as_often_and_not_more_often() -> None:
    """Twelve points of a curve, rounded; a size's own interval in runs of its own length, and what is said holds."""

    def every(**training: object) -> object:
        return recipe("laptop", "dense/raw", {"training": training}).training.evaluate_every

    assert [every(steps=steps) for steps in (3, 120, 480, 1000, 3000, 100_000)] == [40, 40, 40, 85, 250, 8500]
    assert every(steps=3000, evaluate_every=40) == 40
    assert recipe("published-44m").training.evaluate_every == 1000
    assert recipe("laptop", over={"training": {"steps": 3000}}).training.checkpoint_every == 40
