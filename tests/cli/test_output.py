"""What a command prints is as wide as its lines in a file, and as wide as COLUMNS where that is asked for."""

import pytest
from rich.table import Table

from loopscope.cli.output import output


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    console = output()
    table = Table("name", "why", title="all", title_justify="left", box=None)
    table.add_row("dense/rmsnorm", "word " * 60)
    table.add_row("raw", "short")
    console.print(table, markup=False)
    console.print("one line of prose " * 20, markup=False, highlight=False)
    return capsys.readouterr().out.splitlines()


def test_nothing_is_wrapped_in_a_file_and_no_line_ends_in_blanks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = _lines(capsys)
    assert len(lines) == 5
    assert len(lines[2]) > 250
    assert lines == [line.rstrip() for line in lines]


def test_columns_are_kept_to_where_they_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, _lines(capsys))) <= 60
