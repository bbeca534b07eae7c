"""Names that people bring from elsewhere, and slips of the finger, lead to the name that is meant."""

import pytest

from loopscope.cli.arguments import settings_of_a_run
from loopscope.config.near_names import _SAME, near_name

NAMES = [option.name for option in settings_of_a_run().options]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--training.lr", "training.learning_rate"),
        ("lr", "training.learning_rate"),
        ("training.wd", "training.weight_decay"),
        ("bs", "training.batch"),
        ("--batch-size", "training.batch"),
        ("epochs", "training.epochs"),
        ("heads", "model.heads"),
        ("--model.n-head", "model.heads"),
        ("training.epoch", "training.epochs"),
        ("--data.dim", "model.dim"),
        ("--data.sequence-length", "model.sequence"),
        ("steps", "training.steps"),
        ("vocab_size", "model.vocabulary"),
        ("kind", "model.readout.kind"),
        ("model.kind", "model.readout.kind"),
        ("model.lops", "model.loops"),
        ("traning.steps", "training.steps"),
        ("warmup-steps", "training.warmup"),
        ("norm-penalty", "objective.norm_penalty.weight"),
    ],
)
def test_the_name_that_is_meant(typed: str, meant: str) -> None:
    assert near_name(typed, NAMES) == meant


def test_keys_of_one_section_and_names_that_are_near_nothing() -> None:
    assert near_name("lr", ["steps", "learning_rate", "clip"]) == "learning_rate"
    assert near_name("seed", ["out", "seeds", "size"]) == "seeds"
    assert near_name("seed", ["training.seed", "seeds"]) == "seeds"
    assert near_name("training.sed", ["training.seed", "seeds"]) == "training.seed"
    assert near_name("qqqq", NAMES) is None


def test_every_section_that_a_meaning_names_is_there() -> None:
    assert [meant for meant in _SAME if "." in meant and meant not in NAMES] == []
