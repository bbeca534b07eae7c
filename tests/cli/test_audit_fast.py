"""`loopscope audit --fast`: the verdict of a whole audit, without the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import TINY

CONDITIONS = "dense/rmsnorm,dense/rmsnorm+penalty"


@pytest.fixture
def study(call: Any, tmp_path: Path) -> Path:
    out = tmp_path / "study"
    assert call("study", "--conditions", CONDITIONS, "--seeds", "1", "--out", str(out), *TINY, "--quiet") == 0
    return out


def test_verdicts_are_the_whole_audits_and_nothing_is_kept(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert call("audit", str(study), "--json", "--no-keep") == 0
    whole = json.loads(capsys.readouterr().out)["models"]
    assert call("audit", str(study), "--json", "--fast") == 0
    fast = json.loads(capsys.readouterr().out)["models"]
    for one, other in zip(whole, fast, strict=True):
        assert other["fast"] is True
        for key in ("name", "verdict", "why", "objective", "side_scales", "notes", "batch", "data"):
            assert other[key] == one[key], key
        for alone, among in zip(other["loops"], one["loops"], strict=True):
            assert alone["status"] == among["status"]
            assert alone["carry"] == pytest.approx(among["carry"], abs=1e-3)  # one-sided
            assert alone["exposure"] == pytest.approx(among["exposure"], rel=1e-2, abs=1e-5)
        assert other["rms"] == pytest.approx(one["expansion"]["rms"][: len(other["rms"])], rel=1e-5)
    assert [other["verdict"] for other in fast] == ["blind", "visible"]
    assert not list(study.rglob("audit.json"))


def test_it_is_told_what_is_left_out(call: Any, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("audit", str(study), "--fast", "--strict") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "✗ BLIND dense/rmsnorm Loops 1-2 carry" in said
    assert "loop verdict RMS carry direct visibility exposure" in said
    assert "The verdict alone (--fast)." in said
    assert "cross-entropy radius" not in said


@pytest.mark.parametrize("flag", ["--out", "--keep-in"])
def test_a_page_and_a_record_are_of_a_whole_audit(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert call("audit", str(tmp_path), "--fast", flag, str(tmp_path / "x")) == 2
    assert f"{flag} does not go with --fast" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_config_is_read_not_measured(call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("condition: dense/raw\n")
    assert call("audit", "--config", str(tmp_path / "run.yaml"), "--fast") == 2
    assert "--config does not go with --fast: a config is read, not measured" in capsys.readouterr().err


def test_formats_are_not_asked_for_where_none_is_tried(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("audit", str(tmp_path), "--fast", "--rounding", "int8") == 2
    assert "--rounding does not go with --fast" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("condition: dense/raw\n")
    assert call("audit", "--config", str(tmp_path / "run.yaml"), "--rounding", "int9") == 2
    assert "a config has no weights to round" in capsys.readouterr().err
