"""docs/extending.md as a reader follows it: its files in a folder, its commands there, by the real command line."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

import loopscope
from loopscope import cli
from loopscope.config.recipes import is_condition, recipe
from loopscope.model import LoopedTransformer, ModelConfig
from loopscope.plan.catalogue import catalogue_rows
from loopscope.plan.parameters import cost
from loopscope.plan.static_audit import audit_config
from loopscope.plan.training_flops import training_cost
from loopscope.results import load_evaluation, load_results
from tests.extension.fixtures import REST, TINY, files, run, write_package

READOUT, CARRY = "myloops.readouts:MaxNorm", "myloops.carries:Fade"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package and a run of it, trained for two steps."""
    path = tmp_path_factory.mktemp("mine")
    write_package(path)
    done = run(
        path,
        ["audit", "--config", "run.yaml", "--strict"],
        ["train", "--config", "run.yaml", "--out", "runs/mine", "--quiet"],
        ["report", "runs/mine"],
    )
    assert done.returncode == 0, done.stderr
    assert "damped at every loop" in done.stdout
    assert "carry myloops.carries:Fade fades every channel" in " ".join(done.stdout.split())
    return path


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's package where this process finds it, forgotten afterwards."""
    write_package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import sys

    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("myloops", "theirs")]:
        del sys.modules[name]


def test_the_page_has_one_whole_file_of_each() -> None:
    assert set(files()) == {f"myloops/{kind}.py" for kind in ("readouts", "carries", "rules", "placements")}
    assert max(source.count("\n") for source in files().values()) < 40


@pytest.mark.slow
def test_the_run_says_what_it_is_made_of(folder: Path) -> None:
    (found,) = load_results(folder / "runs" / "mine").runs
    assert found.status == "completed"
    assert found.config["model"]["readout"]["kind"] == READOUT
    assert "mine" in (folder / "runs" / "mine" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_folder_imports_nothing_by_itself(folder: Path) -> None:
    done = run(folder, ["audit", "runs/mine"])
    assert done.returncode == 2
    assert "loopscope --import myloops.readouts COMMAND" in done.stderr
    assert "a name in it runs no code" in done.stderr


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


def mine(**changes: Any) -> ModelConfig:
    values = {"readout": READOUT, "carry": [CARRY], "carry_settings": {CARRY: {"start": 0.5}}}
    return recipe(
        "laptop",
        "mine",
        {"model": {**TINY, **values, **changes}, "objective": {"placement": "dense"}, **REST},
    ).model


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


THEIRS = """
from loopscope.model import AbstractReadout, ReadoutDeclaration, AbstractCarry, CarryDeclaration
from loopscope.model.readouts import RMSNormReadout
from loopscope.evaluation.exits.rules import AbstractExitRule, LogitMargin
from torch import nn

class Silent(AbstractReadout):
    def forward(self, hidden, loop, loops): return hidden

class Half(AbstractReadout):
    declaration = ReadoutDeclaration(scale_exponent=1)
    def forward(self, hidden, loop, loops): return hidden

class Inherits(RMSNormReadout):
    def forward(self, hidden, loop, loops): return hidden

class Wrong(AbstractReadout):
    declaration = ReadoutDeclaration(scale_exponent=0, parameters=0, flops=0)
    def forward(self, hidden, loop, loops): return hidden

class Matrix(AbstractReadout):
    declaration = ReadoutDeclaration(
        scale_exponent=1, parameters=lambda config, _: config.dim**2, flops=lambda config, _: 2 * config.dim**2
    )
    def __init__(self, config, settings):
        super().__init__()
        self.matrix = nn.Linear(config.dim, config.dim, bias=False)
    def forward(self, hidden, loop, loops): return self.matrix(hidden)

class MatrixCarry(AbstractCarry):
    declaration = CarryDeclaration(
        effect="keeps", parameters=lambda config, _: config.dim**2, flops=lambda config, _: 2 * config.dim**2
    )
    def __init__(self, config, settings):
        super().__init__()
        self.matrix = nn.Linear(config.dim, config.dim, bias=False)
    def forward(self, hidden, loop): return self.matrix(hidden)

class Empty(AbstractReadout):
    declaration = ReadoutDeclaration(scale_exponent=0, parameters=0, flops=0)

class Nothing: ...

class Rule(AbstractExitRule):
    needs = ("hidden",)
    def score(self, look, before): return look.hidden.sum(-1), {}

class Margin(LogitMargin):
    def score_logits(self, logits, before): return logits[:, 0]
"""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("theirs:Silent", "readout theirs:Silent does not declare declaration: audits and costs ask it"),
        ("theirs:Half", "readout theirs:Half does not declare parameters, flops"),
        ("theirs:Inherits", "readout theirs:Inherits does not declare declaration"),
        ("theirs:Empty", "does not define forward"),
        ("theirs:Nothing", "is no AbstractReadout; inherit from loopscope.model.readouts.base"),
        ("theirs:Mised", "has no 'Mised'"),
        ("theirs:Hulf", "did you mean Half?"),
        ("their:Half", "module 'their' was not found, neither installed nor from the current folder"),
        ("theirs.mod:", "is not of the form package.module:ClassName"),
        ("rmsnrm", "unknown readout 'rmsnrm'; did you mean rmsnorm? Known: rmsnorm, layernorm"),
        ("max-norm", "registered as an entry point of group loopscope.readouts (docs/extending.md)"),
    ],
)
def test_refusals_say_what_is_missing(importable: Path, kind: str, message: str) -> None:
    (importable / "theirs.py").write_text(THEIRS, encoding="utf-8")
    with pytest.raises(ValueError, match="^recipe laptop mine: ") as caught:
        recipe("laptop", "mine", {"model": {"readout": {"kind": kind}}, "objective": {"placement": "dense"}})
    assert message in str(caught.value)


def test_rules_that_do_not_declare_are_refused(importable: Path) -> None:
    from loopscope.evaluation.exits.rules import build_rule

    (importable / "theirs.py").write_text(THEIRS, encoding="utf-8")
    with pytest.raises(ValueError, match="exit rule theirs:Rule does not declare leaves, flops"):
        build_rule("theirs:Rule")
    with pytest.raises(ValueError, match="exit rule theirs:Margin does not declare leaves, flops"):
        build_rule("theirs:Margin")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"carry_settings": {CARRY: {"strat": 0.5}}},
            "'myloops.carries:Fade' has no setting 'strat'; did you mean start?",
        ),
        ({"carry_settings": {CARRY: {"start": 2}}}, "start is 2: Input should be less than 1"),
        ({"carry_settings": {"rmsnorm": {}}}, "carry_settings names 'rmsnorm', which is no step of carry"),
        ({"readout": {"kind": READOUT, "settings": {"a": 1}}}, "has no settings of its own"),
        ({"readout": {"kind": READOUT, "alpha": 0.2}}, "alpha belong to readout kind 'alpha'"),
        (
            {"carry": [CARRY, "readout-norm"]},
            "uses the readout's norm; readout 'myloops.readouts:MaxNorm' has none",
        ),
    ],
)
def test_settings_that_do_not_fit(importable: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^recipe laptop mine: ") as caught:
        mine(**changes)
    assert message in str(caught.value)


def test_matrices_of_ones_own_are_counted(importable: Path) -> None:
    """Parameters by the module, FLOPs by torch's counter, at a depth and with readouts of every loop."""
    (importable / "theirs.py").write_text(THEIRS, encoding="utf-8")
    config = mine(readout="theirs:Matrix", carry=["theirs:MatrixCarry"], carry_settings={}, dim=64)
    model = LoopedTransformer(config).eval()
    assert cost(config).parameters == model.parameter_count()
    model.requires_grad_(False)
    ids = torch.randint(300, (2, 16))
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from loopscope.plan.flops import forward_flops
    from loopscope.recurrence import unroll

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for state in unroll(model, ids):
            state.logits()
    assert forward_flops(config, 16, 4, exits=4) == pytest.approx(counter.get_total_flops() / 32, rel=0.001)


def test_the_measured_audit_says_where_a_declaration_is_wrong(importable: Path) -> None:
    (importable / "theirs.py").write_text(THEIRS, encoding="utf-8")
    model = LoopedTransformer(mine(readout="theirs:Wrong", carry=[], carry_settings={}))
    ids = torch.randint(300, (2, 17))
    report = loopscope.audit(model, ids[:, :-1], ids[:, 1:])
    assert report.verdict == "visible"
    (note,) = [note for note in report.notes if "declares" in note]
    assert "theirs:Wrong" in note


def test_a_strangers_folder_runs_no_code(importable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config that names a module in reach: not imported by loading, and its own words are."""
    import sys

    (importable / "theirs.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    model = importable / "model"
    model.mkdir()
    section = {**TINY, "readout": {"kind": "theirs:Evil"}}
    (model / "config.yaml").write_text(yaml.safe_dump({"model": section}), encoding="utf-8")
    (model / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="loopscope --import theirs COMMAND"):
        loopscope.load(model)
    assert "theirs" not in sys.modules
    (model / "config.yaml").write_text(
        yaml.safe_dump({"model": TINY, "objective": {"placement": "theirs:Evil"}}), encoding="utf-8"
    )
    from loopscope.config.objective_text import read_objective

    with pytest.raises(ValueError, match="loopscope --import theirs COMMAND"):
        read_objective({"placement": "theirs:Evil"}, model)
    # Something that is no variant is refused, however well known its module.
    with pytest.raises(ValueError, match="is no AbstractReadout"), warnings.catch_warnings():
        ModelConfig(**{**TINY, "readout": "os:system"})
