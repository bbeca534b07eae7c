"""Configs: YAML round-trip, and refusals that teach."""

import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.config.nested import changes, differences, merged, read_yaml
from loopscope.config.recipes import CONDITIONS, recipe
from loopscope.config.run_config import RunConfig, parse_config
from loopscope.config.sizes import SIZES


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_recipe_survives_yaml(size: str, condition: str) -> None:
    config = recipe(size, condition)
    assert parse_config(yaml.safe_load(config.to_yaml()), "yaml") == config
    assert (config.size, config.condition) == (size, condition)


@given(
    dim=st.sampled_from([16, 32, 64]),
    heads=st.sampled_from([1, 2, 4, 8]),
    loops=st.integers(1, 9),
    readout=st.sampled_from(
        ["rmsnorm", "layernorm", "raw", "final-only", {"kind": "alpha", "learned": True, "s_ref": "ema"}]
    ),
    carry=st.lists(st.sampled_from(["rmsnorm", "layernorm", "damping"]), unique=True),
    placement=st.sampled_from(["terminal", "dense", "exit-weighted"]),
    penalty=st.floats(0, 10),
    rate=st.floats(1e-8, 10),
    kind=st.sampled_from(["word", "bpe", "bytes"]),
    epochs=st.none() | st.floats(0.1, 9),
)
@settings(max_examples=60)
def test_round_trip(**drawn: object) -> None:
    values = {
        "model": {key: drawn[key] for key in ("dim", "heads", "loops", "readout", "carry")},
        "objective": {"placement": drawn["placement"], "norm_penalty": drawn["penalty"]},
        "data": {"tokenizer": drawn["kind"]},
        "training": {"learning_rate": drawn["rate"]},
    }
    values["model"]["exit_gate"] = drawn["placement"] == "exit-weighted"
    if drawn["epochs"]:
        values["training"]["epochs"] = drawn["epochs"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = parse_config(values, "test")
        assert parse_config(yaml.safe_load(config.to_yaml()), "yaml") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "unknown key modle; did you mean model?"),
        ({"model": {"layer": 2}}, "unknown key model.layer; did you mean layers?"),
        ({"training": {"lr": 1}}, "unknown key training.lr; did you mean learning_rate?"),
        ({"training": {"zzz": 1}}, "unknown key training.zzz; known here: steps, epochs"),
        ({"training": {"betas": [0.9, 1.0]}}, "betas are [0.9, 1.0]; both are numbers from 0 up and below 1"),
        (
            {"training": {"learning_rate": float("inf")}},
            "training.learning_rate is inf: input should be a finite",
        ),
        ({"objective": {"norm_penalty": float("nan")}}, "objective.norm_penalty.weight is nan"),
        ({"training": {"seed": 2**64}}, "training.seed is 18446744073709551616: input should be less than"),
        (
            {"training": {"threads": 100_000}},
            "training.threads is 100000: input should be less than or equal to 1024",
        ),
        ({"model": {"dim": 2**53 + 1, "heads": 2}}, "model.dim is 9007199254740993"),
        ({"model": {"dim": 16**9_000}}, "model.dim is a number of 36,001 bits"),
        ({"objective": {"loop_weights": [1e308, 1e308, 0, 0]}}, "loop_weights is"),
        ({"model": {"readout": {"knd": "raw"}}}, "unknown key model.readout.knd; did you mean kind?"),
        ({"model": {"dim": "wide"}}, "model.dim is 'wide': input should be a valid integer"),
        ({"model": {"loops": 0}}, "model.loops is 0: input should be greater than or equal to 1"),
        ({"model": {"heads": 5}}, "model: heads 5 does not divide dim 128"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate is 'fast'"),
        ({"objective": {"loop_weights": [1, 2]}}, "objective.loop_weights has 2 numbers for 4 loops"),
        ({"objective": {"placement": "exit-weighted"}}, "set model.exit_gate: true"),
        ({"data": {"tokenizer": {"vocabulary": 9000}}}, "set model.vocabulary: 9000"),
        ({"data": {"corpus": "files"}}, "files is empty; name text files or globs"),
        (
            {"model": {"block": {"plcement": "pre"}}},
            "unknown key model.block.plcement; did you mean placement?",
        ),
        ({"model": {"carry": "decay"}}, "carry 'decay' without an injection"),
        (
            {"objective": {"loop_weights": [1, 1, 1, 1]}, "training": {"depth": "uniform"}},
            "objective.loop_weights has one number per loop, but training.depth varies",
        ),
        (
            {"training": {"depth": {"distribution": "uniform", "per_sequence": True}}},
            "set objective.placement: terminal",
        ),
        ({"objective": {"placement": "gate-improvement"}}, "set model.exit_gate: true"),
        (
            {"objective": {"placement": "gate-improvement"}, "model": {"exit_gate": True, "loops": 1}},
            "set model.loops (and training.depth.low) to 2 or more",
        ),
        (
            {
                "objective": {"placement": "gate-improvement"},
                "model": {"exit_gate": True, "readout": {"kind": "alpha", "s_ref": "ema"}},
            },
            "set model.readout.s_ref: fixed",
        ),
        (
            {"training": {"depth": {"distribution": "uniform", "low": 6}}},
            "training.depth.low 6 is above 4, the most loops",
        ),
        (
            {"training": {"depth": {"low": 6, "curriculum": 10}}},
            "or raise training.depth.mean (None: model.loops)",
        ),
        (
            {
                "objective": {"norm_penalty": {"weight": 0.1, "over": "each", "loop_weights": [1, 1, 1, 1]}},
                "training": {"depth": {"distribution": "uniform", "high": 6}},
            },
            "objective.norm_penalty.loop_weights has one number per loop, but training.depth varies",
        ),
        (
            {
                "objective": {"placement": "terminal", "scale_anchor": 0.1},
                "training": {"depth": {"distribution": "uniform", "per_sequence": True}},
            },
            "objective.scale_anchor is a mean over loops",
        ),
        (
            {
                "model": {"loop_embedding": "modulation"},
                "objective": {"placement": "terminal"},
                "training": {"depth": {"distribution": "uniform", "per_sequence": True}},
            },
            "all sequences would be told the deepest one's",
        ),
        (
            {"model": {"prelude": 1}, "training": {"depth": {"backprop": 2}}},
            "the prelude and the embedding would get no gradient",
        ),
        (
            {"model": {"tied": False}, "training": {"depth": {"backprop": 2}}},
            "the embedding (tied: false) would get no gradient",
        ),
    ],
)
def test_refusals_name_the_key_the_value_and_what_to_do(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="^here: ") as caught:
        parse_config(values, "here")
    assert message in str(caught.value)


def test_the_gate_stage_accepts_one_depth_of_its_own() -> None:
    values = {
        "model": {"exit_gate": True},
        "objective": {"placement": "gate-improvement"},
        "training": {"depth": {"mean": 3}},
    }
    assert parse_config(values, "here").training.depth.fewest(4) == 3
    with pytest.raises(ValueError, match="to 2 or more"):
        parse_config({**values, "training": {"depth": {"mean": 1}}}, "here")


def test_yaml_numbers_that_pyyaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("training: {learning_rate: 3e-4}\n")
    values = read_yaml(tmp_path / "run.yaml")
    assert values["training"]["learning_rate"] == "3e-4"  # PyYAML follows YAML 1.1
    assert parse_config(values, "yaml").training.learning_rate == 3e-4


@pytest.mark.parametrize(("text", "message"), [("[1]", "holds a list"), ("a: [", "is not YAML")])
def test_files_that_are_not_configs(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_yaml(tmp_path / "run.yaml")
    with pytest.raises(ValueError, match="does not exist"):
        read_yaml(tmp_path / "other.yaml")


def test_names_that_are_not_known_come_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'dense/raw'"):
        recipe("laptop", "dens/raw")
    with pytest.raises(ValueError, match="did you mean 'laptop'"):
        recipe("labtop")


def test_merging_and_comparing() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 5}}) == {"a": {"b": 5, "c": 2}, "d": 3}
    assert changes(base, {"a": {"b": 1, "c": 9}, "d": 3}) == {"a": {"c": 9}}
    assert list(differences(base, {"a": {"b": 1, "c": 9}})) == ["a.c: 2 there, 9 now", "d: 3 there, None now"]
    assert RunConfig().model_dump() == RunConfig(**RunConfig().model_dump()).model_dump()
