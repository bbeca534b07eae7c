"""Variants of the user's own that lack something, and what is said of them; and those that need nothing else."""

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
from loopscope.config.objective_text import read_objective
from loopscope.config.recipes import recipe
from loopscope.evaluation.exits.rules import build_rule
from loopscope.model import LoopedTransformer, ModelConfig
from loopscope.plan.flops import forward_flops
from loopscope.plan.parameters import cost
from loopscope.recurrence import unroll
from tests.extension.fixtures import CARRY, READOUT, TINY, mine

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
        ("theirs:Nothing", "is no AbstractReadout; inherit from loopscope.model.AbstractReadout"),
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
    with pytest.raises(ValueError, match="^(model|objective|config)") as caught:
        recipe("laptop", "mine", {"model": {"readout": {"kind": kind}}, "objective": {"placement": "dense"}})
    assert message in str(caught.value)


def test_rules_that_do_not_declare_are_refused(importable: Path) -> None:
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
    with pytest.raises(ValueError, match="^(model|objective|config)") as caught:
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
    with pytest.raises(ValueError, match="loopscope --import theirs COMMAND"):
        read_objective({"placement": "theirs:Evil"}, model)
    # Something that is no variant is refused, however well known its module.
    with pytest.raises(ValueError, match="is no AbstractReadout"), warnings.catch_warnings():
        ModelConfig(**{**TINY, "readout": "os:system"})
