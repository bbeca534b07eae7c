"""Variants of a study: what each changes, what it is called, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from loopscope.config.own_conditions import own_conditions, own_recipe
from loopscope.config.recipes import recipe

WEAK = {"condition": "dense/rmsnorm+penalty", "objective": {"norm_penalty": {"weight": 0.001}}}
WHOLE = {"model": {"readout": "layernorm"}, "objective": {"placement": "terminal"}}


def test_a_variant_is_its_condition_with_what_it_changes() -> None:
    over = {"training": {"steps": 7, "learning_rate": 2e-3}}
    config = own_recipe("laptop", "weak", WEAK, over)
    plain = recipe("laptop", "dense/rmsnorm+penalty", over)
    changed = config.model_dump()
    assert changed["condition"] == "weak"
    assert changed["objective"]["norm_penalty"]["weight"] == 0.001
    changed["condition"], changed["objective"]["norm_penalty"]["weight"] = plain.condition, 0.01
    assert changed == plain.model_dump()
    fast = own_recipe("laptop", "fast", {"training": {"learning_rate": 5e-3}}, over)
    assert (fast.training.learning_rate, fast.training.steps) == (5e-3, 7)  # its own on top of what all have
    assert fast.model == recipe("laptop", "dense/rmsnorm").model
    assert own_recipe("laptop", "mine", {"condition": "mine", **WHOLE}).objective.placement == "terminal"


def test_names_of_variants_and_files(tmp_path: Path) -> None:
    for name, values in {
        "a": {"condition": "dense/raw", "training": {"learning_rate": 3e-4}},
        "b": {"condition": "anchored", **WHOLE},
        "c": WHOLE,
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    words = [*(str(tmp_path / f"{name}.yaml") for name in "abc"), "dense/raw", "weak", "whole"]
    found = own_conditions(words, {"weak": WEAK, "whole": WHOLE, "unused": {}})
    assert list(found) == ["a", "anchored", "c", "dense/raw", "weak", "whole"]
    assert found["dense/raw"] is None
    made = {name: own_recipe("laptop", name, change) for name, change in found.items() if change is not None}
    assert {name: config.condition for name, config in made.items()} == {name: name for name in made}
    assert made["a"].training.learning_rate == 3e-4
    assert [made[name].model.readout.kind for name in ("a", "anchored", "c", "whole")] == [
        "raw",
        "layernorm",
        "layernorm",
        "layernorm",
    ]


@pytest.mark.parametrize(
    ("names", "variants", "message"),
    [
        (["weak", "weak"], {"weak": {}}, "two of them are called 'weak'"),
        (["dense/raw"], {"dense/raw": {}}, "variant 'dense/raw' has the name of a condition"),
        (["x"], ["x"], "variants is a list"),
        (["x"], {"x": 3}, "variant 'x' is a int; give it sections"),
        (["x"], {1: {}}, "a variant's name is a text"),
        (["none.yaml"], {}, "none.yaml does not exist"),
    ],
)
def test_what_is_no_variant_is_refused(names: list[str], variants: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own_conditions(names, variants)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "published-44m"}, "has size 'published-44m' and the study 'laptop'"),
        (
            {"condition": "dense/rwa"},
            "condition of variant 'x': 'dense/rwa' is not known; did you mean 'dense/raw'",
        ),
        ({"condition": "x"}, "condition of variant 'x': 'x' is not known"),
        ({"modle": {}}, "variant x: unknown key modle; did you mean model"),
    ],
)
def test_a_variant_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own_recipe("laptop", "x", change)
