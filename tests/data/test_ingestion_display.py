"""Progress of an ingestion where no terminal is: lines with the time, on standard error."""

import re

import pytest

from loopscope.data import ingestion_display
from loopscope.data.ingestion_display import IngestionDisplay


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves."""
    now = [0.0]
    monkeypatch.setattr(ingestion_display.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_every_so_often(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    pieces = ["x" * 1_000_000] * 40
    with IngestionDisplay("stdlib", shown=True) as display:
        for piece in display.counted(pieces, "training tokens", 40_000_000):
            assert len(piece) == 1_000_000
            clock[0] += 1
        display.done("9 training tokens")
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    stamp = r"\d\d:\d\d:\d\d stdlib: "
    for line, text in zip(
        lines,
        [
            "training tokens, 2.0 of 40.0 MB, 1.0 MB/s",
            "training tokens, 17.0 of 40.0 MB, 1.0 MB/s",
            "training tokens, 32.0 of 40.0 MB, 1.0 MB/s",
            "9 training tokens, in 40 s",
        ],
        strict=True,
    ):
        assert re.fullmatch(stamp + re.escape(text), line), line


def test_what_is_quick_or_not_asked_for_says_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for shown, seconds in ((True, 0.5), (False, 90.0)):
        with IngestionDisplay("stdlib", shown) as display:
            for _ in display.counted(["x", "y"], "vocabulary", None):
                clock[0] += seconds
            display.done("all")
    assert capsys.readouterr() == ("", "")
