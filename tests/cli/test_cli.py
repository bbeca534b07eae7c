"""The command line as a person meets it: help at once, errors that teach, the main job end to end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import loopscope
from loopscope.cli.arguments import with_config
from loopscope.cli.study import Study
from loopscope.cli.train import Train
from loopscope.config.recipes import recipe
from loopscope.data.tokenizers import load_tokenizer
from loopscope.results import load_results
from tests.fixtures import TINY


@pytest.mark.parametrize(
    "command", [[], ["--help"], ["train", "--help"], ["study", "--help"], ["report", "-h"]]
)
def test_help_shows_an_example_and_never_loads_torch(command: list[str]) -> None:
    script = f"import sys; sys.argv = ['loopscope', *{command!r}]\nimport loopscope.cli\n"
    script += (
        "try:\n    loopscope.cli.main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "loopscope " in done.stdout
    assert "runs/" in done.stdout


@pytest.mark.smoke
def test_the_main_job(call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "study")
    arguments = ["study", "--conditions", "dense/rmsnorm,dense/raw", "--seeds", "2", "--out", out, *TINY]
    assert call(*arguments) == 0
    shown = capsys.readouterr()
    assert "dense/raw" in shown.out
    assert "3/3  0:00:00 left  loss" in shown.err
    results = load_results(out)
    assert [run.status for run in results.runs] == ["completed"] * 4
    assert results.runs[0].config["model"]["dim"] == 16
    assert call("report", out) == 0
    page = tmp_path / "study" / "report.html"
    assert capsys.readouterr().out.strip() == str(page)
    assert page.stat().st_size < 3_000_000


@pytest.mark.smoke
def test_train_from_yaml_with_flags_on_top_and_resume(call: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "condition: my-anchor\nmodel: {readout: layernorm}\n"
        "objective: {placement: dense, scale_anchor: {weight: 3e-1}}\n"
    )
    arguments = [
        "train",
        "--config",
        str(tmp_path / "run.yaml"),
        "--out",
        str(tmp_path / "run"),
        "--quiet",
        *TINY,
    ]
    assert call(*arguments) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["condition"] == "my-anchor"
    assert config["objective"]["scale_anchor"]["weight"] == 0.3
    assert config["model"]["readout"]["kind"] == "layernorm"
    assert call(*arguments) == 2
    assert call(*arguments, "--resume") == 0


def test_a_condition_of_ones_own_from_flags(call: Any, tmp_path: Path) -> None:
    flags = [
        "--model.readout.kind",
        "raw",
        "--objective.placement",
        "dense",
        "--objective.norm-penalty.weight",
        "1",
    ]
    assert call("train", "--condition", "mine", "--out", str(tmp_path / "run"), "--quiet", *flags, *TINY) == 0
    run = load_results(tmp_path / "run").runs[0]
    assert (run.condition, run.config["objective"]["norm_penalty"]["weight"]) == ("mine", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train", "--out", "x", "--condition", "dense/rwa"], "did you mean 'dense/raw'?"),
        (["train", "--out", "x", "--size", "labtop"], "did you mean 'laptop'?"),
        (["train", "--out", "x", "--model.heads", "5"], "heads 5 does not divide dim 128"),
        (["train", "--out", "x", "--model.loops", "0"], "loops is 0"),
        (["train", "--out", "x", "--model.loop", "3"], "--model.loops"),
        (["train", "--out", "x", "--model.dim", "wide"], "wide"),
        (["train", "--out", "x", "--config", "missing.yaml"], "missing.yaml does not exist"),
        (["train", "--out", "x", "--model.readout.kind", "raw"], "condition 'dense/rmsnorm' is contradicted"),
        (["train", "--out", "x", "--training.device", "warp"], "training.device is 'warp'"),
        (["study", "--out", "x", "--seeds", "none"], "seeds is 'none'"),
        (["study", "--out", "x", "--conditions", "dense/raw,dense/raw"], "each once"),
        (["report", "nowhere"], "no results at nowhere"),
        (["import-published", "nothing.pt", "x"], "nothing.pt is not a file"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(
    call: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    shown = capsys.readouterr()
    assert message in (shown.err + shown.out).replace("\n│ ", " ")
    assert "Traceback" not in shown.err
    assert not (tmp_path / "x").exists()


def test_a_yaml_file_with_an_unknown_key_is_refused(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text("model: {layer: 3}\n")
    assert call("train", "--out", str(tmp_path / "x"), "--config", str(tmp_path / "run.yaml")) == 2
    assert "unknown key model.layer; did you mean layers?" in capsys.readouterr().err


def test_import_published(call: Any, fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "dense_final_only" / "last.pt"
    assert call("import-published", str(source), str(tmp_path / "model")) == 0
    ids = torch.arange(12)[None]
    assert torch.equal(loopscope.load(tmp_path / "model")(ids), loopscope.load(source)(ids))
    tokenizer = load_tokenizer(tmp_path / "model" / "tokenizer.json")
    assert tokenizer.vocabulary_size == 600
    assert tokenizer.decode(tokenizer.encode("the city of")) == "the city of"
    assert call("import-published", str(source), str(tmp_path / "model")) == 2


def test_a_diverged_run_exits_with_1(call: Any, tmp_path: Path) -> None:
    rate = ["--training.learning-rate", "1e30", "--training.precision", "fp32"]
    assert (
        call("train", "--condition", "dense/raw", "--out", str(tmp_path / "run"), "--quiet", *TINY, *rate)
        == 1
    )
    run = load_results(tmp_path / "run").runs[0]
    assert run.status == "diverged"
    assert run.failure.step in (2, 3)


def test_going_on_takes_the_size_from_the_folder(tmp_path: Path) -> None:
    """A run of before another size became the default goes on without a word about it."""
    (tmp_path / "config.yaml").write_text(recipe("laptop", "dense/raw").to_yaml())
    words = ["--condition", "dense/raw", "--out", str(tmp_path), "--resume"]
    assert with_config(Train, "train", words)[1] == recipe("laptop", "dense/raw")
    assert with_config(Train, "train", [*words, "--size", "small"])[1].size == "small"
    assert with_config(Train, "train", ["--out", str(tmp_path / "new")])[1].size == "small"
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "study.yaml").write_text("{size: laptop, over: {}}")
    assert with_config(Study, "study", ["--out", str(tmp_path)])[1].size == "laptop"
