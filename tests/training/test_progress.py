"""What is shown while a run trains: a log's whole lines with the time, a terminal's line with the step first."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loopscope.results import LoopMetrics
from loopscope.training import progress
from loopscope.training.progress import ProgressDisplay, hours
from tests.fixtures import TINY

SPEED = {"tokens_per_second": 12_345.6, "mfu": 0.25}
STAMP = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00:00"), (59.6, "0:01:00"), (3725.4, "1:02:05"), (3.6e5, "100:00:00")]
)
def test_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert hours(seconds) == text


def lines_of_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step_seconds: float
) -> list[str]:
    clock = Clock(monkeypatch)
    display = ProgressDisplay("a/long+condition seed 0", 10_000, 0)
    with display:
        for step in range(1, 10_001):
            clock.now += step_seconds
            display.advance(step)
            if step % 10 == 0:
                display.figures(step, 3.21, [1.0] * 16, SPEED)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("step_seconds", "fewest", "most"), [(0.001, 1, 2), (0.05, 30, 60), (60.0, 100, 210)]
)
def test_a_log_has_whole_lines_with_the_time_and_fewer_the_longer_it_takes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step_seconds: float,
    fewest: int,
    most: int,
) -> None:
    lines = lines_of_a_run(monkeypatch, capsys, step_seconds)
    assert fewest <= len(lines) <= most
    for line in lines:
        assert re.search(
            STAMP + r"a/long\+condition seed 0  [\d,]+/10,000  \d+:\d\d:\d\d left  loss 3\.210", line
        )
        assert line.endswith("1 1 1")
        assert len(line) > 100  # no width is assumed
    assert "  10,000/10,000  0:00:00 left" in lines[-1]


def test_what_is_said_is_one_line_and_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressDisplay("t", 3, 0).say("one\ntwo " + "x" * 200)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(STAMP + "one two x{200}$", line)
    ProgressDisplay("t", 3, 0, quiet=True).say("nothing")
    assert capsys.readouterr().err == ""


def test_eighty_columns_hold_the_first_and_the_last_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    screen = Console(file=out, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    display = ProgressDisplay("dense/rmsnorm seed 0", 20_000, 0)
    clock.now += 10
    display.figures(100, 3.21, [15.1, 14.9, 15.0, 14.8], {"tokens_per_second": 12_345.6})
    screen.print(display.progress.get_renderable())
    assert "loss 3.210  12,346 tok/s  RMS 15.1 … 14.8" in out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_on_a_terminal_step_and_time_left_come_first_and_are_never_cut(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    screen = Console(file=out, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    display = ProgressDisplay("a/very/long+condition seed 1000", 20_000, 0)
    clock.now += 10
    display.figures(100, 3.21, [123.0] * 16, SPEED)
    screen.print(display.progress.get_renderable())
    shown = [line for line in out.getvalue().splitlines() if "left" in line]
    assert shown
    assert shown[-1].startswith("100/20,000  0:33:10 left")
    assert len(shown[-1].rstrip()) <= width
    assert "loss" in shown[-1] or width < 60


def test_a_training_log_is_lines_of_records(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", "--out", str(tmp_path / "run"), *TINY) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any("3/3  0:00:00 left  loss" in line for line in lines)
    records = [line for line in lines if line and not line.startswith("loopscope: note: ")]
    assert all(re.search(STAMP, line) for line in records if "stdlib" not in line), records
    assert not any(line != line.rstrip() for line in records)


def test_the_last_evaluation_is_told_before_and_after(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", "--out", str(tmp_path / "run"), *TINY, "--training.final-windows=8") == 0
    lines = capsys.readouterr().err.splitlines()
    told = [place for place, line in enumerate(lines) if "last evaluation" in line]
    assert len(told) == 1
    assert lines[told[0]].endswith("step 3, trained; last evaluation, on 8 windows of the validation text")
    assert "step 3, validation" in lines[told[0] + 1]


def test_what_is_live_is_the_monitor_s_scale(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RMS per loop, as audits and monitors have it: the L2 norm that is logged over the root of the width."""
    run = tmp_path / "run"
    assert call("train", "--out", str(run), *TINY) == 0
    (shown,) = [line for line in capsys.readouterr().err.splitlines() if "RMS by loop" in line]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    norms = [record["l2_norm"] for record in records if record["kind"] == "train"][-1]
    assert shown.endswith("RMS by loop " + " ".join(f"{norm / 16**0.5:.3g}" for norm in norms))


def test_what_stays_on_a_terminal_are_the_last_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    screen = Console(file=out, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    display = ProgressDisplay("dense/rmsnorm seed 0", 100, 0)
    clock.now += 10
    display.figures(100, 3.21, [15.1, 14.8], {"tokens_per_second": 12_345.6})
    display.last_evaluation(100, "the whole validation text")
    screen.print(display.progress.get_renderable())
    assert "last evaluation, on the whole validation text" in out.getvalue()
    display.evaluation(100, [LoopMetrics(1, 1.0, 2.7, 1.1, 3.0, 0.5)])
    screen.print(display.progress.get_renderable())
    assert "loss 3.210  12,346 tok/s  RMS 15.1 … 14.8" in out.getvalue().splitlines()[-1]
