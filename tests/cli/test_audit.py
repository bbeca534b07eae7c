"""`loopscope audit` as a person meets it: every kind of path, JSON, pages, and mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loopscope.interop.model_folder import save_model
from loopscope.jobs.audit import parse_objective
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results import load_audits
from loopscope.results.layout import RESULT
from tests.fixtures import TINY


@pytest.fixture
def study(call: Any, tmp_path: Path) -> Path:
    out = tmp_path / "study"
    conditions = "dense/rmsnorm,dense/rmsnorm+penalty"
    assert call("study", "--conditions", conditions, "--seeds", "2", "--out", str(out), *TINY, "--quiet") == 0
    return out


@pytest.mark.usefixtures("blank_figures")
def test_a_study_its_runs_and_the_report(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "audit.html"
    assert call("audit", str(study), "--out", str(page)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "✗ BLIND dense/rmsnorm Loops 1-2 carry" in shown
    assert "✓ VISIBLE dense/rmsnorm+penalty The scale of loops 1-2 is seen by the norm penalty" in shown
    assert "Judged under its own objective, dense + norm_penalty." in shown
    assert "validation tokens of stdlib" in shown
    assert "The first seed of each condition was audited. Another one: loopscope audit" in shown
    assert (
        "add a norm penalty of weight 0.01 ✓ visible once trained with" in shown
    )  # it changes nothing before
    assert str(page) in shown.replace(" ", "")
    assert "dense/rmsnorm+penalty" in page.read_text()
    assert "foretold, more loops:" in shown
    assert "More loops than trained" in page.read_text()
    kept = load_audits(study / "dense_rmsnorm" / "seed-0" / "audit.json")[0]
    assert kept.report.verdict == "blind"
    assert kept.objective_from == "model"
    assert kept.prognosis is not None
    assert kept.prognosis.why in shown
    assert [row.loops for row in kept.prognosis.at] == [4, 8]
    assert not (study / "dense_rmsnorm" / "seed-1" / "audit.json").exists()  # one seed of each
    assert call("report", str(study)) == 0
    assert "no loss term sees it" in (study / "report.html").read_text()


def test_json_of_one_and_of_several(call: Any, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(study / "dense_rmsnorm" / "seed-1")
    assert call("audit", run, "--no-keep") == 0
    assert "first seed" not in capsys.readouterr().out
    assert call("audit", run, "--json", "--no-keep") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "blind"
    assert data["name"] == "dense/rmsnorm, seed 1"
    assert not (study / "dense_rmsnorm" / "seed-1" / "audit.json").exists()
    assert call("audit", run, str(study / "dense_rmsnorm+penalty" / "seed-0"), "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert [model["verdict"] for model in data["models"]] == ["blind", "visible"]


@pytest.mark.usefixtures("blank_figures")
def test_a_long_run_says_where_its_scale_is_going(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of a run whose logged scales are made longer: they grow as the square root of the steps."""
    run, page = study / "dense_rmsnorm" / "seed-0", tmp_path / "audit.html"
    record = json.loads((run / RESULT).read_text())
    points = [{"step": step, "loss": 3.0, "l2_norm": [step**0.5] * 2} for step in range(10, 810, 10)]

    def shown(schedule: str) -> str:
        record["config"]["training"]["schedule"] = schedule
        (run / RESULT).write_text(json.dumps({**record, "training": points}))
        assert call("audit", str(run), "--out", str(page)) == 0
        return " ".join(capsys.readouterr().out.split())

    sentence = (
        "in the log of training the L2 norm of H over all loops was 19.5 at step 400 and is 27.6 at step 800;"
    )
    assert sentence in shown("constant")
    assert sentence in page.read_text()
    (kept,) = load_audits(run / "audit.json")
    assert kept.trend is not None
    assert kept.trend.steps == 800
    assert "at twice the steps" not in shown("cosine")  # steps that get shorter let any scale stand still
    record["steps"] += 1
    assert "at twice the steps" not in shown("constant")  # the weights are not those that were recorded
    (run / RESULT).write_text("{")
    assert call("audit", str(run)) == 0


def test_strict_fails_where_a_loop_is_blind(call: Any, study: Path) -> None:
    assert call("audit", str(study / "dense_rmsnorm" / "seed-0"), "--strict") == 1
    assert call("audit", str(study / "dense_rmsnorm+penalty" / "seed-0"), "--strict") == 0
    assert call("audit", str(study / "dense_rmsnorm" / "seed-0"), "--strict", "--objective", "terminal") == 1


def test_a_published_checkpoint(call: Any, fixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fixtures / "dense_rmsnorm"
    tokens = str(folder / "expected.safetensors")
    assert call("audit", str(folder / "last.pt"), "--data", tokens, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["verdict"], data["objective"], data["objective_from"]) == ("blind", "dense", "model")
    expected = json.loads((folder / "expected.json").read_text())
    assert data["expansion"]["l2_norm"][:4] == pytest.approx(
        expected["mean_token_l2_norm_per_loop"], rel=1e-4
    )
    assert not (folder / "audit.json").exists()


def test_an_exported_folder_without_an_objective(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=16, heads=2, loops=2, vocabulary=300, sequence=16, readout="final-only")
    save_model(LoopedTransformer(config), tmp_path / "model", {}, {})
    text = tmp_path / "prose.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 40)
    assert call("audit", str(tmp_path / "model"), "--data", str(text)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "BLIND model" in shown
    assert "Nothing says what it was trained on" in shown
    assert "terminal blind, dense visible" in shown
    assert "as bytes, because the model has no tokenizer" in shown


def test_a_config_before_training(call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("condition: dense/rmsnorm\n")
    assert call("audit", "--config", str(path), "--strict") == 1
    assert "BLIND dense/rmsnorm" in " ".join(capsys.readouterr().out.split())
    path.write_text("condition: mine\nmodel: {readout: raw}\nobjective: {placement: terminal}\n")
    assert call("audit", "--config", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "visible"


def test_objectives_in_words(tmp_path: Path) -> None:
    assert parse_objective("terminal+norm_penalty=0.5").norm_penalty.weight == 0.5
    anchor = parse_objective("dense+scale_anchor=0.1@2.5").scale_anchor
    assert (anchor.weight, anchor.target) == (0.1, 2.5)
    path = tmp_path / "run.yaml"
    path.write_text("objective: {placement: dense, norm_penalty: 0.25}\n")
    assert parse_objective(str(path)).norm_penalty.weight == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a path to measure"),
        (["nowhere"], "nowhere does not exist"),
        (["MODEL", "--objective", "desne"], "unknown placement 'desne'"),
        (["MODEL", "--objective", "dense+penalty=1"], "'penalty=1' is not a penalty"),
        (["MODEL", "--objective", "dense+norm_penalty=x"], "norm_penalty=WEIGHT"),
        (["MODEL", "--sequences", "0"], "sequences is 0"),
        (["MODEL", "--length", "40"], "16 learned positions"),
        (["MODEL", "--data", "missing.txt"], "missing.txt"),
        (["MODEL", "--data", "TOKENS"], "an audit needs input_ids"),
        (["MODEL", "--data", "SHORT"], "shorter than one window"),
    ],
)
def test_mistakes(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    config = ModelConfig(dim=16, heads=2, loops=2, vocabulary=300, sequence=16)
    save_model(LoopedTransformer(config), tmp_path / "model", {}, {})
    save_file({"ids": torch.zeros(2, 2)}, tmp_path / "tokens.safetensors")
    (tmp_path / "short.txt").write_text("short")
    places = {
        "MODEL": str(tmp_path / "model"),
        "TOKENS": str(tmp_path / "tokens.safetensors"),
        "SHORT": str(tmp_path / "short.txt"),
    }
    assert call("audit", *[places.get(argument, argument) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
