"""docs/extending.md as a reader follows it: its files in a folder, its commands there, by the real command line."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import loopscope
from loopscope import cli
from loopscope.config.recipes import is_condition, recipe
from loopscope.model import LoopedTransformer
from loopscope.plan.catalogue import catalogue_rows
from loopscope.plan.parameters import cost
from loopscope.plan.static_audit import audit_config
from loopscope.plan.training_flops import training_cost
from loopscope.results import load_evaluation, load_results
from tests.extension.fixtures import READOUT, REST, TINY, files, mine, run, write_package


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package and a run of it, trained for two steps."""
    path = tmp_path_factory.mktemp("mine")
    write_package(path)
    done = run(
        path,
        ["audit", "--config", "run.yaml", "--strict"],
        ["train", "--config", "run.yaml", "--out", "runs/mine", "--quiet"],
    )
    assert done.returncode == 0, done.stderr
    assert "damped at every loop" in done.stdout
    assert "carry myloops.carries:Fade fades every channel" in " ".join(done.stdout.split())
    return path


def test_the_page_has_one_whole_file_of_each() -> None:
    assert set(files()) == {f"myloops/{kind}.py" for kind in ("readouts", "carries", "rules", "placements")}
    assert max(source.count("\n") for source in files().values()) < 40


@pytest.mark.slow
def test_the_run_says_what_it_is_made_of(folder: Path) -> None:
    (found,) = load_results(folder / "runs" / "mine").runs
    assert found.status == "completed"
    assert found.config["model"]["readout"]["kind"] == READOUT


@pytest.mark.slow
def test_a_folder_imports_nothing_by_itself(
    folder: Path, call: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which finds the package and has not imported it."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    assert find_spec("myloops") is not None
    assert call("audit", "runs/mine") == 2
    said = capsys.readouterr().err
    assert "loopscope --import myloops.readouts COMMAND" in said
    assert "a name in it runs no code" in said
    assert not {name for name in sys.modules if name.split(".")[0] == "myloops"}


@pytest.mark.slow
def test_audit_evaluate_generate_and_report(folder: Path) -> None:
    rule = "myloops.rules:SteadyScale"
    done = run(
        folder,
        ["--import", "myloops", "audit", "runs/mine"],
        ["evaluate", "exits", "runs/mine", "--rules", rule, "--pairs", "1"],
        [
            "generate",
            "runs/mine",
            "--prompt",
            "def",
            "--new-tokens",
            "3",
            "--exit-rule",
            rule,
            "--threshold",
            "9",
        ],
        ["report", "runs/mine"],
    )
    assert done.returncode == 0, done.stderr
    assert f"readout {READOUT} is scale-invariant" in " ".join(done.stdout.split())
    kept = load_evaluation(folder / "runs" / "mine")
    assert kept is not None
    assert kept.exits is not None
    assert {curve.rule for curve in kept.exits.curves} == {rule}
    assert "1.00 of 4 loops" in done.stderr
    page = (folder / "runs" / "mine" / "report.html").read_text(encoding="utf-8")
    assert READOUT in page
    assert rule in page


def test_modules_are_named_before_any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPSCOPE_IMPORT", "one,two.three")
    words = ["--import", "four", "audit", "x", "--import", "five,six", "--json"]
    assert cli._modules(words) == (
        ["one", "two.three", "four", "five", "six"],
        ["audit", "x", "--json"],
    )
    assert cli._modules(["audit", "--import"]) == (["one", "two.three"], ["audit", "--import"])


def test_costs_are_those_of_the_module(importable: Path) -> None:
    config = mine()
    model = LoopedTransformer(config)
    assert cost(config).parameters == model.parameter_count()
    assert cost(config).by_part["loop"] == 16
    assert set(model.state_dict()) >= {"reading.gain", "carries.myloops-carries:Fade.logit"}
    assert torch.sigmoid(model.state_dict()["carries.myloops-carries:Fade.logit"]).mean() == pytest.approx(
        0.5
    )


def test_blind_where_it_is_blind(importable: Path) -> None:
    """The same words before training and by measurement: what the issue found to be said wrongly."""
    config = recipe("laptop", f"dense/{READOUT}", {"model": TINY, **REST})
    assert audit_config(config).verdict == "blind"
    ids = torch.randint(300, (2, 17), generator=torch.Generator().manual_seed(0))
    report = loopscope.audit(LoopedTransformer(config.model), ids[:, :-1], ids[:, 1:])
    assert report.verdict == "blind"
    assert not any("declares" in note for note in report.notes)
    assert READOUT in report.why


def test_a_placement_of_ones_own(importable: Path) -> None:
    from loopscope.objectives.objective import build_objective
    from loopscope.recurrence import unroll

    config = recipe("laptop", "myloops.placements:LateLoops/raw", {"model": TINY, **REST})
    torch.manual_seed(0)
    model = LoopedTransformer(config.model)
    ids = torch.randint(300, (2, 17))
    objective = build_objective(config.objective)
    assert objective.name == "myloops.placements:LateLoops"
    with torch.no_grad():
        split = objective.split(unroll(model, ids[:, :-1]), ids[:, 1:])
        plain = objective(unroll(model, ids[:, :-1]), ids[:, 1:])
    fused = objective(unroll(model, ids[:, :-1]), ids[:, 1:])
    assert set(split) == {"cross_entropy@3", "cross_entropy@4"}
    assert float(plain.total) == pytest.approx(float(plain.cross_entropy[2:].mean()), rel=1e-6)
    assert float(fused.total) == pytest.approx(float(plain.total), rel=1e-6)
    dense = recipe("laptop", "dense/raw", {"model": TINY, **REST})
    readouts = 2 * 3 * 2 * 16 * 300  # forward and backward of two heads fewer
    assert training_cost(dense) - training_cost(config) == readouts
    assert audit_config(config).verdict == "visible"


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        (f"dense/{READOUT}", True),
        (f"terminal/{READOUT}+penalty", True),
        (f"huginn:dense/{READOUT}", True),
        (f"unlooped:terminal/{READOUT}", True),
        ("myloops.placements:LateLoops/raw", True),
        (f"densely/{READOUT}", False),
        (f"dense/{READOUT}+more", False),
        ("dense/rms", False),
        ("mine", False),
    ],
)
def test_conditions_that_name_a_class(name: str, yes: bool) -> None:
    assert is_condition(name) is yes


def test_under_a_familys_architecture(importable: Path) -> None:
    config = recipe("laptop", f"ouro:dense/{READOUT}", {"model": TINY, **REST})
    assert config.model.readout.kind == READOUT
    assert config.model.carry == ("rmsnorm",)  # it declares no norm to share
    assert cost(config.model).parameters == LoopedTransformer(config.model).parameter_count()
    assert len(catalogue_rows("huginn")) == 2  # the catalogue goes on as it was
