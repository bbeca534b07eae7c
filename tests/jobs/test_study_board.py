"""The table of a study whose runs others train: on a screen no longer than it, elsewhere a line for a change."""

import io

import pytest
from rich.console import Console

from loopscope.jobs import study_board
from loopscope.jobs.study_board import BoardRow, StudyBoard, board_table, counts_of

ROWS = [
    BoardRow("dense/rmsnorm, seed 0", "finished", 300, 300, "2.104", "worker 1"),
    BoardRow("dense/raw, seed 0", "running", 120, 300, "2.981", "worker 2"),
    BoardRow("dense/rmsnorm, seed 1", "waiting", 0, 300),
    BoardRow("dense/raw, seed 1", "failed", 7, None),
]


def drawn(rows: list[BoardRow], most: int, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(board_table("study", rows, most))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_the_table_has_what_matters_first_and_fits() -> None:
    lines = drawn(ROWS, 10)
    assert max(map(len, lines)) <= 80
    places = [next(place for place, line in enumerate(lines) if row.name in line) for row in ROWS]
    assert places[3] < places[1] < places[2] < places[0]
    assert "120/300" in lines[places[1]]
    assert "7/?" in lines[places[3]]
    assert "1 finished, 1 running, 1 waiting, 1 failed" in lines[-1]
    short = drawn(ROWS, 2)
    assert len(short) == len(lines) - 2
    assert "(2 not shown)" in short[-1]
    assert max(map(len, drawn([BoardRow("x" * 200, "running", 1, 2, "1", "y" * 200)], 3))) <= 80


def test_elsewhere_there_is_a_line_for_every_change_and_now_and_then_one_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = StudyBoard("study", 4)
    with board:
        board.show([BoardRow(row.name, "waiting") for row in ROWS])
        assert capsys.readouterr().err == ""
        board.show(ROWS)
        board.show(ROWS)
        lines = [line.partition("  ")[2] for line in capsys.readouterr().err.splitlines()]
        assert lines == [
            "dense/rmsnorm, seed 0: finished (worker 1) at step 300, loss 2.104",
            "dense/raw, seed 0: running (worker 2), from step 120",
            "dense/raw, seed 1: failed at step 7",
        ]
        monkeypatch.setattr(study_board, "LEAST_WAIT", 0.0)
        board.show(ROWS)
        assert "1 running, 1 waiting, 1 failed: dense/raw, seed 0 120/300" in capsys.readouterr().err
    with StudyBoard("study", 4, quiet=True) as silent:
        silent.show(ROWS)
    assert capsys.readouterr().err == ""
    assert counts_of([]) == ""
