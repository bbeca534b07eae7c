"""What drafts save: the benchmark runs on a trained run and on random weights, and its JSON has the promised keys."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import drafts
from loopscope.jobs import execute
from tests.jobs.fixtures import tiny


def test_guesses_times_and_costs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    execute(tiny(), tmp_path / "run", quiet=True)
    few = ["--guesses", "2", "--exits", "1", "--batches", "1", "--pairs", "1", "--threads", "1"]
    text = ["--run", str(tmp_path / "run"), "--prompt", "4", "--new-tokens", "6", "--costs", "laptop"]
    monkeypatch.setattr(sys, "argv", ["drafts", *text, *few])
    drafts.main()
    found: Any = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["text"] for row in found["texts"]] == ["greedy", "drawn"]
    assert all(0 <= row["guessed_share"] <= 0.667 and row["faster"] > 0 for row in found["texts"])
    (cost,) = found["costs"]
    assert cost["at_best"] == pytest.approx(3 / (3 * cost["guess_steps"] + cost["check_steps"]), rel=0.02)
    assert found["speedup_vs_full_depth"] == max(row["faster"] for row in found["texts"])
