"""Tokens per second by cell: every way makes its tokens, and the headline is the worst cell against the best way."""

import json
import sys
from typing import Any

import pytest

from benchmarks import generation


@pytest.mark.parametrize(
    ("other", "ways"),
    [
        ("anew", {"ours", "anew"}),
        (
            "transformers",
            {"ours", *(f"{model} {kind}" for model in ("export", "llama") for kind in ("dynamic", "static"))},
        ),
    ],
)
def test_a_cell_has_every_way(
    other: str, ways: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ["--sizes", "laptop", "--threads", "1", "--batches", "1", "2", "--prompts", "3"]
    monkeypatch.setattr(
        sys, "argv", ["generation", f"--against-{other}", *cells, "--new-tokens", "2", "--pairs", "1"]
    )
    generation.main()
    found: Any = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [cell["batch"] for cell in found["cells"]] == [1, 2]
    for cell in found["cells"]:
        rates = cell["tokens_per_second"]
        assert set(rates) == ways
        best = max(rate for name, rate in rates.items() if name != "ours")
        assert cell["faster"] == pytest.approx(rates["ours"] / best, rel=0.05)
    assert found[f"speedup_vs_{other}"] == min(cell["faster"] for cell in found["cells"])


@pytest.mark.filterwarnings("ignore:compile has no effect")  # what checks shapes in tests cannot be traced
def test_compiled_steps_are_a_way_beside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ["--sizes", "laptop", "--threads", "1", "--batches", "1", "--prompts", "3", "--compile"]
    monkeypatch.setattr(
        sys, "argv", ["generation", "--against-anew", *cells, "--new-tokens", "2", "--pairs", "1"]
    )
    generation.main()
    found: Any = json.loads(capsys.readouterr().out.splitlines()[-1])
    (cell,) = found["cells"]
    rates = cell["tokens_per_second"]
    assert set(rates) == {"ours", "anew", "compiled"}
    assert cell["best"] == "anew"
    assert cell["compiled_faster"] == pytest.approx(rates["compiled"] / rates["anew"], rel=0.05)
    assert cell["compiled_vs_ours_faster"] == pytest.approx(rates["compiled"] / rates["ours"], rel=0.05)
    assert found["compiled_speedup_vs_anew"] == cell["compiled_faster"]
