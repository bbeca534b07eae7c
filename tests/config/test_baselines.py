"""Baselines: matched to the looped model that is asked for, at any size, with its FLOPs counted by torch."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import loopscope
from loopscope import cli
from loopscope.cli.arguments import with_config
from loopscope.cli.recipes import in_short
from loopscope.cli.study import Study
from loopscope.cli.train import Train
from loopscope.config.baselines import BASELINES
from loopscope.config.recipes import CONDITIONS, is_condition, recipe
from loopscope.config.run_config import parse_config
from loopscope.config.sizes import SIZES
from loopscope.jobs.study import plan, run_study
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.plan.catalogue import catalogue_rows, match
from loopscope.plan.static_audit import audit_config
from loopscope.recurrence import unroll
from loopscope.results.layout import run_folder
from tests.fixtures import TINY

SMALL: dict[str, Any] = {
    "model": {"dim": 64, "heads": 4, "layers": 1, "loops": 3, "vocabulary": 200, "sequence": 32},
    "data": {"tokenizer": {"vocabulary": 200}},
}
IDS = torch.arange(4 * 32).view(4, 32) * 7 % 200
LABELS = (IDS * 3 + 1) % 200
ONE_LOOP = [name for name in CONDITIONS if "interloop" not in name]


def built(name: str) -> LoopedTransformer:
    torch.manual_seed(0)
    return LoopedTransformer(recipe("laptop", name, SMALL).model)


def flops(condition: str, training: bool) -> int:
    """By torch's counter, of one batch; attention by plain products, which it knows on every device."""
    model = built(condition)
    objective = build_objective(recipe("laptop", condition, SMALL).objective)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if training:
            objective(unroll(model, IDS), LABELS).total.backward()
        else:
            with torch.no_grad():
                model(IDS)
    return counter.get_total_flops()


def test_same_parameters_are_the_same_tensors() -> None:
    looped, alone = built("terminal/rmsnorm"), built("unlooped")
    assert looped.loops == 3
    assert alone.loops == 1
    ours, theirs = looped.state_dict(), alone.state_dict()
    assert {name: part.shape for name, part in ours.items()} == {
        name: part.shape for name, part in theirs.items()
    }
    assert all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )  # the size's own start, which looks at no K


def test_same_inference_flops_by_torchs_counter() -> None:
    assert flops("unlooped-deep", training=False) == flops("terminal/rmsnorm", training=False)
    assert len(built("unlooped-deep").layers) == 3
    assert flops("unlooped", training=False) < flops("terminal/rmsnorm", training=False)


def test_training_flops_are_stated_with_and_without_the_dense_heads() -> None:
    found = match("unlooped-deep", "laptop", SMALL)
    tokens = IDS.numel()
    for stated, condition in (
        (found.training_flops, "unlooped-deep"),
        (found.training_flops_terminal, "terminal/rmsnorm"),
        (found.training_flops_dense, "dense/rmsnorm"),
    ):
        assert stated == pytest.approx(flops(condition, training=True) / tokens, rel=0.01), condition
    assert found.training_flops == found.training_flops_terminal < found.training_flops_dense
    heads = 2 * 3 * 2 * 64 * 200  # two heads more: logits once, and twice for their gradients
    assert found.training_flops_dense - found.training_flops_terminal == heads


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BASELINES)
def test_every_size_has_them_without_a_warning(name: str, size: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = recipe(size, name)
        looped = recipe(size, "terminal/rmsnorm").model
    assert config.model.loops == 1
    assert config.objective.placement == "terminal"
    assert config.model.layers == (looped.layers if name == "unlooped" else looped.layers * looped.loops)
    same = ("dim", "prelude", "coda", "positions", "tied", "initialisation", "vocabulary", "readout")
    assert all(getattr(config.model, key) == getattr(looped, key) for key in same)
    assert parse_config(yaml.safe_load(config.to_yaml()), "yaml") == config
    found = match(name, size)
    if name == "unlooped":
        assert found.parameters == found.parameters_looped
    else:
        assert found.inference_flops == found.inference_flops_looped


def test_a_runs_own_config_says_the_same_run_again(tmp_path: Path) -> None:
    config = recipe("laptop", "unlooped-deep", {"model": {"loops": 6}})
    assert config.model.layers == 12
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    flags = ["--config", str(path), "--out", "x"]
    assert with_config(Train, "train", flags)[1] == config


@pytest.mark.parametrize(
    ("flags", "layers"),
    [
        ([], 8),
        (["--model.loops", "1"], 2),
        (["--model.loops", "6"], 12),
        (["--model.layers", "8"], 32),
        (["--model.layers", "3", "--model.loops=2"], 6),
    ],
)
def test_flags_speak_of_the_looped_model(flags: list[str], layers: int) -> None:
    _, config, _ = with_config(
        Train, "train", ["--condition", "unlooped-deep", "--out", "x", "--quiet", *flags]
    )
    assert (config.model.layers, config.model.loops) == (layers, 1)


def test_a_study_holds_them_beside_the_looped_conditions() -> None:
    over = {"model": {"loops": 6}, "training": {"depth": {"distribution": "uniform", "high": 8}}}
    grid = plan("laptop", ["dense/raw", "unlooped", "unlooped-deep", "unlooped:dense/raw"], [0, 1], over)
    shapes = {config.condition: (config.model.layers, config.model.loops) for config in grid}
    assert shapes == {
        "dense/raw": (2, 6),
        "unlooped": (2, 1),
        "unlooped-deep": (12, 1),
        "unlooped:dense/raw": (2, 1),
    }
    assert {config.condition: config.training.depth.varies for config in grid}["unlooped"] is False
    assert len({run_folder("x", config.condition, config.training.seed) for config in grid}) == 8


@pytest.mark.parametrize("condition", ONE_LOOP)
@pytest.mark.parametrize("name", BASELINES)
def test_under_a_condition_it_audits_as_it_reads(name: str, condition: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = recipe("laptop", f"{name}:{condition}", SMALL)
    torch.manual_seed(0)
    objective = build_objective(config.objective)
    measured = loopscope.audit(LoopedTransformer(config.model), IDS, LABELS, objective)
    assert measured.verdict == audit_config(config).verdict in ("visible", "removed")
    assert "next loop" not in measured.why


def test_without_a_recurrence_nothing_is_blind() -> None:
    read = audit_config(recipe("laptop", "unlooped"))
    assert (read.verdict, len(read.loops)) == ("removed", 1)
    assert "without a recurrence" in read.why
    assert audit_config(recipe("laptop", "unlooped:dense/raw")).verdict == "visible"
    assert all(row.verdict == "removed" and row.loops == 1 for row in catalogue_rows("unlooped-deep"))


def test_what_makes_no_sense_with_one_loop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"runs one loop.*carry \['rmsnorm'\] between loops"):
        recipe("laptop", "unlooped:dense/rmsnorm+interloop")
    with pytest.raises(ValueError, match="did you mean 'unlooped-deep'"):
        recipe("laptop", "unlooped-dep")
    with pytest.raises(ValueError, match=r"condition 'unlooped' is contradicted.*readout"):
        recipe("laptop", "unlooped", {"model": {"readout": {"kind": "raw"}}})
    with pytest.raises(ValueError, match="model.loops is 0"):
        recipe("laptop", "unlooped-deep", {"model": {"loops": 0}})
    with pytest.raises(ValueError, match="model.loops is 'four'"):
        recipe("laptop", "unlooped-deep", {"model": {"loops": "four"}})
    assert is_condition("unlooped:dense/raw")
    assert not is_condition("unlooped:")


def test_a_study_trains_them(tmp_path: Path, cache: Path) -> None:
    _, config, over = with_config(Study, "study", ["--out", "x", *TINY])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*unknown to the tokenizer")  # a vocabulary of 64 words
        results = run_study(
            config.size, ["dense/raw", "unlooped", "unlooped-deep"], [0], tmp_path / "s", over, True
        )
    runs = {run.condition: run for run in results.runs}
    assert all(run.status == "completed" for run in runs.values())
    assert len(runs["unlooped-deep"].per_loop) == len(runs["unlooped"].per_loop) == 1
    assert runs["unlooped-deep"].parameters > runs["unlooped"].parameters
    assert loopscope.load(tmp_path / "s" / "unlooped-deep" / "seed-0").loops == 1


def test_recipes_prints_both(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["loopscope", "recipes", "--family", "unlooped-deep"])
    cli.main()
    shown = capsys.readouterr().out
    found = match("unlooped-deep", "laptop")
    for number in (found.training_flops_terminal, found.training_flops_dense):
        assert f"{in_short(found.training_flops)}/{in_short(number)}" in shown
    monkeypatch.setattr(sys, "argv", ["loopscope", "recipes", "--family", "unlooped", "--json"])
    cli.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["parameters"] == 1_065_600
