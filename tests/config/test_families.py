"""Families: recipes that are what their papers describe, build, train a step, and audit as their config reads."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import loopscope
from loopscope import cli
from loopscope.audit.audit_report import judge
from loopscope.config.baselines import BASELINES
from loopscope.config.families import FAMILIES, FAMILY_SIZES
from loopscope.config.recipes import CONDITIONS, condition_change, is_condition, recipe
from loopscope.config.run_config import parse_config
from loopscope.jobs.train import execute
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.depth import draw_depths, unroll_to
from loopscope.objectives.objective import build_objective
from loopscope.plan.catalogue import catalogue_rows
from loopscope.plan.parameters import cost, count_parameters
from loopscope.plan.static_audit import audit_config
from tests.fixtures import open_verdicts

IDS = torch.arange(64).view(2, 32) * 3 % 96
LABELS = (IDS * 5 + 1) % 96
SMALL: dict[str, Any] = {
    "model": {"dim": 32, "heads": 4, "vocabulary": 96, "sequence": 32},
    "data": {"tokenizer": {"vocabulary": 96}},
}
GRID = ["dense/rmsnorm", "dense/raw", "terminal/raw", "dense/rmsnorm+penalty", "dense/rmsnorm+interloop"]

VERDICTS = {
    "universal": "blind",
    "ouro": "removed",
    "huginn": "removed",
    "parcae": "damped",  # its coda adds to the state before the last norm: that may show it, or not yet
    "loopformer": "blind",
    "deeploop": "removed",
    "hybrid": "blind",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_survives_yaml(family: str) -> None:
    for size in ("laptop", *FAMILIES[family].sizes):
        config = recipe(size, family)
        assert parse_config(yaml.safe_load(config.to_yaml()), "yaml") == config
        assert (config.size, config.condition) == (size, family)


@pytest.mark.parametrize("condition", GRID)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_a_step_and_audits_as_it_reads(family: str, condition: str) -> None:
    name = f"{family}:{condition}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = recipe("laptop", name, SMALL)
    torch.manual_seed(0)
    model = LoopedTransformer(config.model)
    objective = build_objective(config.objective)
    objective(unroll_to(model, IDS, draw_depths(config.training.depth, 4, 0, 0, 2)), LABELS).total.backward()
    measured = judge(model, IDS, LABELS, objective).loops
    read = audit_config(config)
    for said, found in zip(read.loops, measured, strict=True):
        assert found.status in open_verdicts(config, said), (said, found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_as_published_trains_a_step_and_has_its_verdict(family: str) -> None:
    config = recipe("laptop", family, SMALL)
    torch.manual_seed(0)
    model = LoopedTransformer(config.model).train()
    with torch.no_grad():  # gates that start shut would leave nothing to measure
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    objective = build_objective(config.objective)
    depths = draw_depths(config.training.depth, 4, 0, 3, 2)
    loss = objective(unroll_to(model, IDS, depths, config.training.depth.backprop), LABELS)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    measured = judge(model, IDS, LABELS, objective).loops
    read = audit_config(config)
    assert read.verdict == VERDICTS[family]
    # Weights that were moved make parcae's coda show what it hides at its start: either is right for a fading sight.
    assert {loop.status for loop in measured} <= set.union(
        *(open_verdicts(config, loop) for loop in read.loops)
    )


def test_a_coda_that_shows_too_little_is_not_called_scale_invariant() -> None:
    """Parcae as it starts: damped, and the sentence says that its coda shows a little of the scale."""
    config = recipe("laptop", "parcae", SMALL)
    torch.manual_seed(0)
    measured = loopscope.audit(
        LoopedTransformer(config.model), IDS, LABELS, build_objective(config.objective)
    )
    read = audit_config(config)
    assert measured.verdict == read.verdict == "damped"
    assert "shows too little of it to count, and less as it grows" in measured.why
    assert "scale-invariant" not in measured.why
    assert "the coda (fading as 1/s) may show it at loop 4" in read.why
    blind = recipe("laptop", "universal", SMALL)
    found = loopscope.audit(LoopedTransformer(blind.model), IDS, LABELS, build_objective(blind.objective))
    assert "is scale-invariant" in found.why


def test_shapes_are_the_published_ones() -> None:
    """Parameter counts that the papers and model cards state, as far as they are known."""
    assert 1.43e9 < cost(recipe("ouro-1.4b", "ouro").model).parameters < 1.44e9
    assert 2.6e9 < cost(recipe("ouro-2.6b", "ouro").model).parameters < 2.7e9
    huginn = recipe("huginn-3.5b", "huginn").model
    assert 3.5e9 < cost(huginn).parameters < 3.6e9
    assert (huginn.prelude, huginn.layers, huginn.coda, huginn.loops) == (2, 4, 2, 32)
    parcae = recipe("parcae-140m", "parcae").model
    assert (parcae.prelude, parcae.layers, parcae.coda, parcae.width) == (2, 2, 2, 3072)
    value_embeddings = 3 * 32_768 * 768
    assert 68e6 < cost(parcae).parameters - value_embeddings < 70e6
    assert 140e6 < cost(parcae).parameters < 150e6
    assert parcae.value_layers == (False, True, False, True, False, True)
    loopformer = recipe("loopformer-3x8", "loopformer").model
    modulation = 3 * 4 * 2048 * 2049 + 2 * (256 * 2048 + 2048 + 2048 * 2048 + 2048)
    blocks = 3 * (4 * 2048**2 + 2 * 2048 * 5120)
    assert (
        count_parameters(loopformer)["shared"] + count_parameters(loopformer)["loop"] == blocks + modulation
    )


def test_laptop_families_have_the_parts_of_their_papers() -> None:
    models = {name: recipe("laptop", name).model for name in FAMILIES}
    huginn, parcae, ouro = models["huginn"], models["parcae"], models["ouro"]
    assert (huginn.prelude, huginn.coda, huginn.coda_norm, huginn.start) == (1, 1, True, "random")
    assert (huginn.injection.kind, huginn.block.placement) == ("concat", "sandwich-sum")
    assert (parcae.carry, parcae.injection.kind, parcae.injection.norm) == (("decay",), "write", True)
    assert (ouro.carry, ouro.block.placement, ouro.gate_reads) == (("readout-norm",), "sandwich", "readout")
    assert models["deeploop"].block.scaling == "deeploop"
    assert models["loopformer"].loop_embedding == "modulation"
    assert models["hybrid"].looped == "attention"
    depth = recipe("laptop", "huginn").training.depth
    assert (depth.distribution, depth.backprop, depth.spread) == ("lognormal-poisson", 8, 0.5)
    assert recipe("laptop", "parcae").training.depth.per_sequence


def test_a_family_under_a_condition_is_its_architecture_with_that_loss_at_a_fixed_depth() -> None:
    config = recipe("laptop", "huginn:dense/raw")
    assert (config.model.readout.kind, config.objective.placement) == ("raw", "dense")
    assert not config.model.coda_norm  # a readout without a norm has none to share
    assert not config.training.depth.varies
    assert recipe("laptop", "ouro:dense/raw").model.carry == ("rmsnorm",)
    assert not recipe("laptop", "ouro:dense/raw").model.exit_gate
    assert recipe("laptop", "parcae:dense/rmsnorm+interloop").model.carry == ("decay", "rmsnorm")
    assert (
        recipe("laptop", "huginn:dense/raw").model.initialisation == "published"
    )  # the size's: an axis of its own
    assert recipe("laptop", "huginn").model.initialisation == "scaled"


def test_names_are_checked_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'huginn'"):
        recipe("laptop", "hugin")
    with pytest.raises(ValueError, match="family 'huggin' is not known; did you mean 'huginn'"):
        recipe("laptop", "huggin:dense/raw")
    with pytest.raises(ValueError, match="did you mean 'dense/raw'"):
        recipe("laptop", "huginn:dense/rw")
    with pytest.raises(ValueError, match=r"condition 'huginn' is contradicted.*model.start"):
        recipe("laptop", "huginn", {"model": {"start": "zero"}})
    assert is_condition("parcae:dense/raw")
    assert not is_condition("parcae:")
    assert condition_change("dense/raw", "laptop") is CONDITIONS["dense/raw"]


def test_the_catalogue_has_every_family_at_every_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = catalogue_rows()
    assert {row.size for row in rows} >= {"laptop", "published-44m", *FAMILY_SIZES}
    assert {row.family: row.verdict for row in rows} == {**VERDICTS, **dict.fromkeys(BASELINES, "removed")}
    laptop = next(row for row in rows if row.family == "universal")
    assert laptop.parameters == 1_065_600
    monkeypatch.setattr(sys, "argv", ["loopscope", "recipes", "--json"])
    cli.main()
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["parameters"] for entry in printed] == [row.parameters for row in rows]
    monkeypatch.setattr(sys, "argv", ["loopscope", "recipes", "--family", "huginn"])
    cli.main()
    assert "3.56B" in capsys.readouterr().out
    with pytest.raises(ValueError, match="family 'x' is not known"):
        catalogue_rows("x")


def test_a_gate_is_trained_in_a_second_stage_on_a_trained_model(tmp_path: Path, cache: Path) -> None:
    """Ouro's stage II: the first stage's weights, and nothing of them moves but the gate."""
    tiny = {
        "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 3, "vocabulary": 64, "sequence": 16},
        "data": {
            "max_bytes": 30_000,
            "max_validation_bytes": 2_000,
            "tokenizer": {"vocabulary": 64},
        },
        "training": {"steps": 3, "batch": 4, "precision": "fp32", "checkpoint_every": None, "threads": 1},
    }
    execute(recipe("laptop", "dense/rmsnorm", tiny), tmp_path / "first", quiet=True)
    second = {
        "model": {**tiny["model"], "readout": "rmsnorm", "exit_gate": True},
        "objective": {"placement": "gate-improvement"},
        "data": tiny["data"],
        "training": {**tiny["training"], "weights": str(tmp_path / "first")},
    }
    execute(recipe("laptop", "stage-two", second), tmp_path / "second", quiet=True)
    before = loopscope.load(tmp_path / "first").state_dict()
    after = loopscope.load(tmp_path / "second").state_dict()
    assert set(after) - set(before) == {"gate.weight", "gate.bias"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.manual_seed(0)
    fresh = LoopedTransformer(recipe("laptop", "stage-two", second).model)
    assert not torch.equal(after["gate.weight"], fresh.state_dict()["gate.weight"])
    wide = {**second, "model": {**second["model"], "dim": 32}}
    with pytest.raises(ValueError, match=r"does not fit this model .* is \(16, 16\) there, \(32, 32\) here"):
        execute(recipe("laptop", "stage-two", wide), tmp_path / "third", quiet=True)
    lost = {**second, "training": {**second["training"], "weights": str(tmp_path)}}
    with pytest.raises(ValueError, match="holds neither model.safetensors nor checkpoints"):
        execute(recipe("laptop", "stage-two", lost), tmp_path / "fourth", quiet=True)
