"""A folder that is gone on with: its own settings hold where nothing is named, and what is named is compared alone."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from loopscope.cli.arguments import with_config
from loopscope.cli.train import Train
from loopscope.results import load_results
from tests.fixtures import TINY


def test_a_run_goes_on_with_nothing_but_its_folder_named(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 300)
    out = str(tmp_path / "own")
    own = ["--condition", "dense/raw", "--data.corpus", "files", "--data.files", str(tmp_path / "text.txt")]
    assert call("train", "--out", out, *TINY, *own, "--training.evaluate-every", "2") == 0
    before = yaml.safe_load((tmp_path / "own" / "config.yaml").read_text())
    assert f"next: loopscope audit {out} " in capsys.readouterr().out

    (tmp_path / "own" / "audit.json").write_text("{}")  # set aside with a note, but for --quiet
    assert call("train", "--out", out, "--resume", "--training.steps", "4", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert call("train", "--out", out, "--resume", "--training.steps", "5") == 0
    assert (
        "own goes on with its own config.yaml (size laptop, condition dense/raw)" in capsys.readouterr().err
    )
    after = yaml.safe_load((tmp_path / "own" / "config.yaml").read_text())
    before["training"]["steps"] = 5
    assert after == before
    assert load_results(out).runs[0].steps == 5

    for named, said in (
        (["--condition", "dense/rmsnorm"], "(condition: 'dense/raw' there, 'dense/rmsnorm' now)"),
        (["--size", "small"], "(size: 'laptop' there, 'small' now)"),
        (["--model.dim", "32"], "(model.dim: 16 there, 32 now)"),
        (["--training.steps", "2"], "(training.steps: 5 there, 2 now)"),
    ):
        assert call("train", "--out", out, "--resume", *named) == 2
        assert f"belongs to another config {said}; leave that out" in capsys.readouterr().err


def test_intervals_follow_a_longer_end_only_where_they_were_the_sizes_own(tmp_path: Path) -> None:
    def resumed(*words: str) -> Any:
        return with_config(Train, "train", ["--out", str(tmp_path), "--resume", *words])[1]

    for made, longer in (((), 250), (("--training.evaluate-every", "7"), 7)):
        config = with_config(Train, "train", ["--out", str(tmp_path / "new"), *made])[1]
        (tmp_path / "config.yaml").write_text(config.to_yaml())
        assert resumed() == config
        assert resumed("--training.steps", "3000").training.evaluate_every == longer


def test_a_baseline_is_named_by_its_looped_model_also_when_it_goes_on(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--condition", "unlooped-deep", "--model.layers", "3"]
    config = with_config(Train, "train", words)[1]
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert with_config(Train, "train", [*words, "--resume"])[1] == config
    assert with_config(Train, "train", ["--out", str(tmp_path), "--resume"])[1] == config


def test_a_study_goes_on_with_nothing_but_its_folder_named(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weak.yaml").write_text(
        "condition: dense/rmsnorm+penalty\nobjective: {norm_penalty: {weight: 1e-3}}\n"
    )
    out, names = str(tmp_path / "mine"), f"dense/raw,{tmp_path / 'weak.yaml'}"
    assert call("study", "--out", out, "--quiet", "--conditions", names, "--seeds", "5,", *TINY) == 0
    first = load_results(out)

    assert call("study", "--out", out) == 0  # also the condition of one's own, whose file is not named
    assert (
        "goes on with its own study.yaml (size laptop, conditions dense/raw, weak, seeds 5)"
        in capsys.readouterr().err
    )
    assert load_results(out).runs == first.runs
    assert call("study", "--out", out, "--quiet", "--conditions", "dense/layernorm") == 0
    runs = load_results(out).runs
    assert [(run.condition, run.seed) for run in runs] == [
        ("dense/raw", 5),
        ("weak", 5),
        ("dense/layernorm", 5),
    ]
    assert runs[2].config["model"]["dim"] == 16

    study = str(tmp_path / "mine" / "study.yaml")
    assert call("study", "--out", out, "--quiet", "--config", study) == 0
    for named, said in (
        (["--model.dim", "32"], "(model.dim: 16 there, 32 now)"),
        (["--size", "small"], "(size: 'laptop' there, 'small' now)"),
        (["--data.stride", "8"], "(data.stride: None there, 8 now)"),
    ):
        assert call("study", "--out", out, *named) == 2
        assert f"belongs to another config {said}; leave that out" in capsys.readouterr().err


def test_a_strangers_folder_imports_nothing(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange_norms.py").write_text("raise SystemExit('imported')")
    (tmp_path / "study.yaml").write_text(
        "size: laptop\nover: {}\nconditions: ['dense/strange_norms:Max']\nseeds: [0]\n"
    )
    assert call("study", "--out", str(tmp_path)) == 2
    assert "loopscope --import strange_norms COMMAND" in capsys.readouterr().err
