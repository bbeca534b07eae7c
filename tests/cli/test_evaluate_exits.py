"""`loopscope evaluate exits` as a person meets it: runs, studies, published checkpoints, JSON, and mistakes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loopscope.interop.model_folder import save_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results import ModelEvaluation, decode, load_evaluation
from tests.fixtures import TINY

RULES = ["logit-margin", "max-probability", "entropy-confidence", "kl", "shortlist-margin", "hidden-step"]
RULES += ["direction-step", "oracle"]


@pytest.fixture
def run(call: Any, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    assert call("train", "--out", str(out), *TINY, "--quiet") == 0
    return out


def test_a_run_gets_curves_thresholds_and_speed(
    call: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--target", "50", "--budget", "1.5", "--windows", "30", "--pairs", "1"]
    assert call("evaluate", "exits", str(run), *options) == 0
    shown = capsys.readouterr().out
    evaluation = load_evaluation(run)
    assert evaluation is not None
    assert evaluation.exits is not None
    assert (evaluation.windows, evaluation.sequence, evaluation.trained_loops) == (30, 16, 2)
    assert len(evaluation.flops_per_token) == 2
    exits = evaluation.exits
    assert [point.mean_loops for point in exits.fixed] == [1.0, 2.0]
    pairs = [(r, u) for u in ("sequence", "token") for r in RULES if (r, u) != ("shortlist-margin", "token")]
    assert [(c.rule, c.unit) for c in exits.curves] == pairs
    assert {c.rule for c in exits.curves if c.bound} == {"oracle"}
    assert all(sum(point.left_at) == pytest.approx(1) for curve in exits.curves for point in curve.points)
    assert [c.target for c in exits.calibrations] == ["perplexity", "mean loops"] * len(pairs)
    assert all(c.windows == (16, 14) for c in exits.calibrations)
    met = [c for c in exits.calibrations if c.unit == "sequence" and c.met and c.rule != "oracle"]
    assert met
    assert [(s.rule, s.threshold) for s in exits.speeds] == [(c.rule, c.threshold) for c in met]
    assert all((s.batch, len(s.fixed_seconds)) == (14, 1) for s in exits.speeds)
    assert all(s.allowed is not None and s.allowed <= s.ideal for s in exits.speeds)
    # What is printed is what is kept.
    for each in met:
        assert each.tested_on is not None
        row = [
            f"{each.threshold:.4g}",
            f"{each.tested_on.mean_loops:.2f}",
            f"{each.tested_on.perplexity:.4g}",
        ]
        assert any(line.split()[2:5] == row for line in shown.splitlines() if line.startswith(each.rule))
    assert f"Kept in {run / 'evaluation.json'}." in shown.replace("\n", "")


def test_one_rule_as_json_keeps_nothing_when_told_so(
    call: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--rules", "fixed, kl", "--unit", "token", "--pairs", "0", "--no-keep", "--json"]
    assert call("evaluate", "exits", str(run), *options) == 0
    found = decode(ModelEvaluation, json.loads(capsys.readouterr().out))
    assert found.exits is not None
    assert [(c.rule, c.unit) for c in found.exits.curves] == [("fixed", "token"), ("kl", "token")]
    assert found.exits.speeds == ()
    assert not (run / "evaluation.json").exists()


def test_a_study_is_all_its_runs(call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    names = "dense/rmsnorm,dense/raw"
    assert call("study", "--conditions", names, "--seeds", "1", "--out", str(out), *TINY, "--quiet") == 0
    options = ["--rules", "hidden-step", "--pairs", "0", "--windows", "4", "--json"]
    assert call("evaluate", "exits", str(out), *options) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["condition"] for model in models] == ["dense/rmsnorm", "dense/raw"]
    assert load_evaluation(out / "dense_raw" / "seed-0") is not None


def test_a_published_checkpoint_has_its_gate_too(
    call: Any, fixtures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fixtures / "adaptive_rmsnorm_damped"
    options = ["--data", str(folder / "expected.safetensors"), "--windows", "4", "--pairs", "1", "--json"]
    assert call("evaluate", "exits", str(folder / "last.pt"), *options) == 0
    exits = json.loads(capsys.readouterr().out)["exits"]
    assert "gate" in {curve["rule"] for curve in exits["curves"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rules", "logit-margn"], "unknown exit rule 'logit-margn'; did you mean logit-margin?"),
        (["--rules", "gate"], "rule 'gate' needs a model with an exit gate, and this one has none"),
        (["--rules", ","], "rules is empty"),
        (["--rules", "shortlist-margin", "--unit", "token"], "decides per sequence only"),
        (["--target", "-1"], "target is -1.0; give the perplexity that may be lost, in percent, from 0 up"),
        (["--budget", "0.5"], "budget is 0.5; mean loops go from 1 up"),
        (["--budget", "2.5"], "budget is 2.5; give mean loops from 1 up and below 2"),
        (["--windows", "1"], "windows is 1; a threshold is chosen on one part of them"),
        (["--windows", "0"], "windows is 0"),
        (["--pairs", "-1"], "pairs is -1"),
    ],
)
def test_mistakes_are_said_before_anything_is_kept(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    tiny = {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 64, "sequence": 16}
    save_model(LoopedTransformer(ModelConfig(**tiny)), tmp_path / "model", {}, {})
    tokens = tmp_path / "tokens.safetensors"
    save_file({"input_ids": torch.randint(64, (4, 17))}, tokens)
    given = ["--data", str(tokens), *options, *(() if "--pairs" in options else ("--pairs", "0"))]
    assert call("evaluate", "exits", str(tmp_path / "model"), *given) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "model" / "evaluation.json").exists()


def test_a_path_is_needed(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", "exits") == 2
    assert "give a path to evaluate" in capsys.readouterr().err


def test_the_page_runs(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python of docs/evaluation.md: a batch that leaves early."""
    monkeypatch.chdir(tmp_path)
    assert call("train", "--out", "runs/mine/dense_raw/seed-0", *TINY, "--quiet") == 0
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    (leave,) = re.findall(r"^```python\n(.*?)^```", page[page.index("## Exits") :], re.S | re.M)
    names: dict[str, Any] = {}
    exec(compile(leave, "evaluation.md", "exec"), names)
    assert capsys.readouterr().out.endswith("torch.Size([4, 8, 64])\n")
    rule = names["build_rule"]("direction-step")
    left = names["early_exit"](names["model"], names["input_ids"], rule, rule.high)
    assert left.loops.tolist() == [1] * 4
