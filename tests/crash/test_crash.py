"""A few of the kills that `python -m tests.crash --kills 50` makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.kills import compared

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_runs_that_are_killed_end_as_the_run_in_one_piece() -> None:
    command = [sys.executable, "-m", "tests.crash", "--kills", "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == 12
    assert found["inside_a_save"] > 0
    assert found["runs"] == found["equal"] > 0
    for way in found["ways"].values():
        assert way["kills"] == 3
        assert way["most_lost"] <= way["may_lose"]


def test_a_run_that_differs_is_told(tmp_path: Path) -> None:
    for name, loss in (("whole", 1.0), ("cut", 1.5)):
        (tmp_path / name).mkdir()
        lines = [
            json.dumps({"kind": "train", "step": step, "loss": loss if step == 9 else 1.0, "l2_norm": []})
            + "\n"
            for step in range(1, 41)
        ]
        (tmp_path / name / "metrics.jsonl").write_text("".join(lines))
    assert "its losses differ: (('train', 9, 1.0, None), ('train', 9, 1.5, None))" in compared(
        tmp_path / "whole", tmp_path / "cut"
    )
    (tmp_path / "cut" / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert compared(tmp_path / "whole", tmp_path / "cut") == "its curve has not every step once"
