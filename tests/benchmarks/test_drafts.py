"""What drafts save: the benchmark runs on a trained run and on random weights, and its JSON has the promised keys."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import drafts
from loopscope.config import recipe
from loopscope.jobs import execute


def test_guesses_times_and_costs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"dim": 32, "layers": 1, "heads": 2, "vocabulary": 300, "sequence": 64}
    data = {"tokenizer": {"kind": "bpe", "vocabulary": 300}}
    config = recipe("small", over={"model": sizes, "data": data, "training": {"steps": 3, "batch": 2}})
    execute(config, tmp_path / "run", quiet=True)
    few = ["--guesses", "2", "--exits", "1", "--batches", "1", "--pairs", "1", "--threads", "1"]
    text = ["--run", str(tmp_path / "run"), "--prompt", "8", "--new-tokens", "6", "--costs", "laptop"]
    monkeypatch.setattr(sys, "argv", ["drafts", *text, *few])
    drafts.main()
    found: Any = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["text"] for row in found["texts"]] == ["greedy", "drawn"]
    assert all(0 <= row["guessed_share"] <= 2 / 3 and row["faster"] > 0 for row in found["texts"])
    (cost,) = found["costs"]
    assert cost["at_best"] == pytest.approx(3 / (3 * cost["guess_steps"] + cost["check_steps"]), rel=0.02)
    assert found["speedup_vs_full_depth"] == max(row["faster"] for row in found["texts"])
