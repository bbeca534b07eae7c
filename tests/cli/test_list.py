"""`loopscope list` and `--dry-run` as they are read: on 80 columns, in a log, as JSON."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loopscope.cli.list_runs import run_line
from loopscope.jobs import runs_below
from loopscope.results.lock import Holder, hold
from tests.jobs.fixtures import tiny


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A run that is done, as far as its files say."""
    run = tmp_path / "a-run-with-a-name-that-is-long-and-ends-in-1"
    run.mkdir()
    (run / "config.yaml").write_text(tiny("dense/raw").to_yaml())
    records: list[dict[str, Any]] = [
        {"kind": "train", "step": 4, "loss": 5.5, "l2_norm": [1.0, 2.0]},
        {"kind": "evaluation", "step": 4, "per_loop": [{"loss": 5.0}, {"loss": 4.5}]},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (run / "result.json").write_text('{"status": "completed", "steps": 4}')
    return tmp_path


def test_runs_are_listed(call: Any, capsys: pytest.CaptureFixture[str], world: Path) -> None:
    (run,) = world.iterdir()
    assert call("list", world) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "step", "loss", "verdict"]
    assert line.split() == [run.name, "finished", "4/4", "4.500", "visible", "(c)"]
    assert call("list", world, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["condition"], values["state"], values["step"], values["steps"]) == (
        "dense/raw",
        "finished",
        4,
        4,
    )
    assert (values["verdict"], values["verdict_of"]) == ("visible", "config")
    assert (values["loss"], values["loss_of"]) == (4.5, "validation")


def test_a_terminal_of_eighty_columns_is_enough(world: Path) -> None:
    (run,) = world.iterdir()
    with hold(run):
        (listed,) = runs_below(world)
    longest = replace(listed, now=replace(listed.now, step=9_999_999, holder=Holder(4_194_304, "h", "", "")))
    shown = run_line(longest, world, wide=False)
    assert "running, 4194304" in shown
    assert len(run_line(replace(listed, steps=150), world, wide=False)) <= 80
    assert "…" in shown


def test_a_word_in_its_place_is_one_of_its_choices(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("completion", "fsh") == 2
    assert (
        capsys.readouterr().err
        == "loopscope: SHELL is 'fsh'; it is one of bash, zsh, fish; did you mean fish?\n"
    )


def test_where_there_is_nothing(call: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("list", tmp_path) == 0
    assert "no runs in" in capsys.readouterr().out
    assert call("list", tmp_path / "none") == 2
    assert "is not there; name a folder to look in" in capsys.readouterr().err


def test_a_plan_fits_the_screen(call: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("train", "--out", tmp_path / "run", "--dry-run", "--log", "tensorboard") == 0
    lines = capsys.readouterr().out.splitlines()
    labels = [line[:12].strip() for line in lines if line[:1].isalpha()]
    assert labels[:5] == ["run", "model", "memory", "machine", "text"]
    assert lines[-1] == "Everything was checked; nothing was written. Without --dry-run it starts."
    assert max(map(len, lines)) <= 80 + len(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_the_disk_cannot_hold_ends_with_that(
    call: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert call("train", "--out", tmp_path / "run", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "TOO LITTLE" in said
    assert said.endswith("nothing was written. Make room on the disk first.\n")
