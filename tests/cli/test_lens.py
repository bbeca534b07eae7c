"""`loopscope lens` on a trained run and on a stranger's folder: the page, the record, and what is refused."""

import json
from pathlib import Path

import pytest

from loopscope.results import LogitLens, decode
from tests.cli.fixtures import lens_world as lens_world
from tests.fixtures import run_command


def test_a_run(lens_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(lens_world)
    assert (
        run_command(
            monkeypatch, "lens", "run", "--prompt", "def main", "--loops", "3", "--out", "a/page.html"
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "loop 3" in said
    assert "2 ◂ trained" in said
    assert "settles" in said
    assert "page.html" in said
    assert "What each exit would say" in Path("a/page.html").read_text()


def test_a_strangers_folder(
    lens_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lens_world)
    assert run_command(monkeypatch, "lens", "dory", "--prompt", "héllo", "--json") == 0
    record = decode(LogitLens, json.loads(capsys.readouterr().out))
    assert bytes(record.token_ids) == "héllo".encode()
    assert record.layers == ("model.layers.1", "model.layers.2")
    assert len(record.loops) == record.trained_loops == 3
    assert record.provenance is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--prompt", ""], "prompt is empty"),
        (["run"], "--prompt is missing"),
        (["run", "--prompt", "a", "--loops", "0"], "loops is 0; it must be a whole number from 1 up"),
        (["run", "--prompt", "a", "--top", "0"], "top is 0"),
        (["run", "--prompt", "a", "--out", "."], "out is ., a folder"),
        (["run", "--prompt", "x y z " * 20], "this model has 16 positions: shorten it"),
        (["dory", "--prompt", "x" * 70], "the prompt has 70 tokens, and this model has 64 positions"),
        (["rotary", "--prompt", "x " * 700], "a lens has a row for each, at most 1,024"),
        (["nowhere", "--prompt", "a"], "nowhere"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_refusals(
    lens_world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(lens_world)
    assert run_command(monkeypatch, "lens", *words) == 2
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if not line.startswith("loopscope: note: ")]
    assert captured.out == ""
    assert len(said) == 1
    assert message in said[0]
