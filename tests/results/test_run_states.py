"""How far a run is, from what lies in its folder: each state, and a folder that is damaged or being written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopscope.results.lock import hold
from loopscope.results.run_states import TAIL, run_state, studies_and_runs


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


TRAINED = lines(
    *({"kind": "train", "step": step, "loss": 9.0 - step, "l2_norm": [1.0]} for step in (1, 2, 3)),
    {"kind": "monitor", "step": 2, "rms": [1.0], "verdict": "blind"},
    {"kind": "monitor", "step": 3, "rms": [1.0], "verdict": None},
)
EVALUATED = lines({"kind": "evaluation", "step": 2, "per_loop": [{"loss": 5.0}, {"loss": 4.5}]})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-00000002").mkdir(parents=True)
    (folder / "config.yaml").write_text("condition: dense/raw\n")
    (folder / "metrics.jsonl").write_text(TRAINED)
    return folder


def test_a_run_that_was_cut(run: Path) -> None:
    now = run_state(run)
    assert (now.state, now.step, now.saved, now.holder) == ("interrupted", 3, 2, None)
    assert (now.loss, now.loss_of) == (6.0, "training")
    assert (now.verdict, now.verdict_of) == ("blind", "monitor")


@pytest.mark.parametrize(
    ("status", "state"), [("completed", "finished"), ("diverged", "diverged"), ("failed", "failed")]
)
def test_a_run_that_ended(run: Path, status: str, state: str) -> None:
    result = {"status": status, "steps": 4, "failure": {"message": "why"} if state != "finished" else None}
    (run / "result.json").write_text(json.dumps(result))
    (run / "metrics.jsonl").write_text(EVALUATED + TRAINED)
    (run / "audit.json").write_text(json.dumps({"verdict": "visible"}))
    now = run_state(run)
    assert (now.state, now.step) == (state, 4)
    assert (now.loss, now.loss_of) == (4.5, "validation")
    assert (now.verdict, now.verdict_of) == ("visible", "audit")
    assert now.why == (None if state == "finished" else "why")


def test_a_result_that_cannot_be_read_is_told(run: Path) -> None:
    (run / "result.json").write_text('{"status": "compl')
    now = run_state(run)
    assert now.state == "interrupted"
    assert now.why is not None
    assert "result.json cannot be read" in now.why


def test_a_run_that_is_held_runs_and_one_whose_process_was_killed_does_not(run: Path) -> None:
    with hold(run):
        now = run_state(run)
        assert now.state == "running"
        assert now.holder is not None
        assert now.holder.pid == os.getpid()
    assert run_state(run).state == "interrupted"
    code = f"import os\nfrom loopscope.results.lock import hold\nwith hold({str(run)!r}):\n    os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (run / ".holder.json").is_file()
    assert run_state(run).state == "interrupted"


def test_looking_takes_nothing_from_one_that_begins(run: Path) -> None:
    before = sorted(run.rglob("*"))
    run_state(run)
    assert sorted(run.rglob("*")) == before


def test_only_the_end_of_long_metrics_is_read_and_damage_is_no_end(run: Path) -> None:
    (run / "metrics.jsonl").write_text("x" * TAIL + "\n" + TRAINED + '{"kind": "tr')
    (run / "result.json").write_text('{"status"')
    assert run_state(run).step == 3
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe[1]\n")
    assert run_state(run).step == 0


def test_studies_and_runs_are_found_and_models_are_not(run: Path) -> None:
    root = run.parent
    study = root / "grid"
    for seed in (0, 1):
        folder = study / "dense_raw" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("x: 1\n")
    (study / "study.yaml").write_text("size: laptop\n")
    (root / "model").mkdir()
    (root / "model" / "config.yaml").write_text("x: 1\n")
    (root / "model" / "model.safetensors").write_bytes(b"")
    found = [(str(path.relative_to(root)), whole) for path, whole in studies_and_runs(root)]
    assert found == [
        ("grid", True),
        ("grid/dense_raw/seed-0", False),
        ("grid/dense_raw/seed-1", False),
        ("run", False),
    ]
    assert [path for path, _ in studies_and_runs(run)] == [run]


def test_a_failure_that_is_no_record_is_no_reason(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"status": "failed", "steps": 4, "failure": True}))
    now = run_state(tmp_path)
    assert (now.state, now.step, now.why) == ("failed", 4, None)
