"""The metrics file: whole lines are read, and a file that is cut, damaged or another run's is said to be."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from loopscope.training.metrics import read_metrics

Trainer = Any


def record(step: int, **values: Any) -> str:
    return json.dumps({"kind": "train", "step": step, "loss": 1.0, "l2_norm": [1.0], **values}) + "\n"


def test_a_last_line_cut_by_a_kill_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(record(1) + record(2) + '{"kind": "tr')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    "line",
    ['{"kind": "tr\n', "[1]\n", '{"step": 3}\n', '{"kind": "train", "step": 3}\n', "\ufffd\n", '"a"\n', "\n"],
)
def test_lines_that_are_no_records_are_counted_and_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(record(1) + line + record(2))
    with pytest.warns(UserWarning, match=r"metrics.jsonl is damaged: 1 of 3 lines .*the first is line 2"):
        assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]


def test_a_resumed_run_says_that_its_metrics_are_not_those_that_it_wrote(
    trainer: Trainer, tmp_path: Path
) -> None:
    settings = {"steps": 6, "log_every": 1, "monitor_every": 0}
    trainer("run", checkpoint_every=3, **settings)
    path = tmp_path / "run" / "metrics.jsonl"
    whole = path.read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer("run", checkpoint_every=3, **settings)
    assert path.read_text() == whole
    for content, says in (
        ("".join(whole.splitlines(keepends=True)[:3]), "was cut short"),
        (whole.replace('"step": 2', '"step": 1', 1), "was changed since step-00000006 was saved"),
        (None, "is gone or was cut short"),
    ):
        path.unlink() if content is None else path.write_text(content)
        with pytest.warns(UserWarning, match=rf"metrics.jsonl .*{says}"):
            trainer("run", checkpoint_every=3, **settings)
        path.write_text(whole)
