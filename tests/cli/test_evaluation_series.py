"""Studies evaluated run by run: how far it is, what a second call has left to do, and in which order."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loopscope.results import load_evaluation
from loopscope.training import progress
from tests.fixtures import TINY, run_command

NAMES = ("dense/rmsnorm", "dense/raw")
STAMP = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
EXITS = ("--rules", "hidden-step", "--pairs", "0", "--windows", "4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two conditions in an order that is not the alphabet's, two seeds."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        given = ["study", "--conditions", ",".join(NAMES), "--seeds", "2", "--out", str(folder / "study")]
        assert run_command(patch, *given, *TINY) == 0
    return folder


@pytest.fixture
def study(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(trained / "cache"))
    return Path(shutil.copytree(trained / "study", tmp_path / "study"))


def lines_of(part: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said of each model."""
    return [line for line in capsys.readouterr().err.splitlines() if f"evaluate {part} " in line]


@pytest.mark.parametrize(("part", "options"), [("exits", EXITS), ("depth", ("--windows", "4"))])
def test_a_second_call_goes_on_with_what_is_missing(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str], part: str, options: tuple[str, ...]
) -> None:
    given = ("evaluate", part, str(study), *options)
    assert call(*given) == 0
    lines = lines_of(part, capsys)
    runs = [study / name.replace("/", "_") / f"seed-{seed}" for name in NAMES for seed in (0, 1)]
    assert len(lines) == 4
    for number, (line, run) in enumerate(zip(lines, runs, strict=True), start=1):
        assert re.search(rf"{STAMP}evaluate {part} {number}/4  {run}: done in 0:00:\d\d$", line)
    records = [(run / "evaluation.json").read_text() for run in runs]
    (runs[2] / "evaluation.json").unlink()  # as after an interruption
    assert call(*given) == 0
    lines = lines_of(part, capsys)
    assert [("measured before" in line, "done in" in line) for line in lines] == [
        (run != runs[2], run == runs[2]) for run in runs
    ]
    assert [
        (run / "evaluation.json").read_text() == text for run, text in zip(runs, records, strict=True)
    ] == [
        True,
        True,
        False,
        True,
    ]
    assert call(*given, "--again") == 0
    assert all("done in" in line for line in lines_of(part, capsys))


def test_other_settings_other_text_and_another_checkpoint_are_measured(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = study / "dense_raw" / "seed-0"
    assert call("evaluate", "exits", str(run), *EXITS) == 0
    assert call("evaluate", "exits", str(run), *EXITS, "--target", "3") == 0
    assert call("evaluate", "exits", str(run), *EXITS[:-1], "3", "--target", "3") == 0
    (state,) = run.glob("checkpoints/*/state.json")
    values = json.loads(state.read_text())
    state.write_text(json.dumps(values, indent=2))  # of another training: the same values in another file
    assert call("evaluate", "exits", str(run), *EXITS[:-1], "3", "--target", "3") == 0
    lines = lines_of("exits", capsys)
    assert len(lines) == 4
    assert all("done in" in line for line in lines)
    assert load_evaluation(run / "evaluation.previous.json") is not None


def test_a_depth_that_was_measured_deeper_is_cut_and_its_record_stays(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = study / "dense_raw" / "seed-0"
    assert call("evaluate", "depth", str(run), "--loops", "5", "--windows", "4") == 0
    capsys.readouterr()
    assert call("evaluate", "depth", str(run), "--loops", "3", "--windows", "4", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["depth"][0]["per_loop"]) == 3
    kept = load_evaluation(run)
    assert kept is not None
    assert len(kept.depth[0].per_loop) == 5


def test_a_terminal_shows_which_model_is_measured(
    call: Any, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    screen = Console(file=out, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    assert call("evaluate", "exits", str(study), *EXITS) == 0
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "\n", out.getvalue())
    live = re.findall(r"(\d/4)  \S+ left +evaluate exits  (\S+)", shown)
    assert list(dict.fromkeys(live)) == [
        (f"{number}/4", f"{name.replace('/', '_')}/seed-{seed}")
        for number, (name, seed) in enumerate((name, seed) for name in NAMES for seed in (0, 1))
    ]
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_audits_come_in_the_order_of_the_study(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("audit", str(study), "--sequences", "2", "--json") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models] == list(NAMES)
