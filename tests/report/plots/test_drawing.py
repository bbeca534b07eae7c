"""Figures drawn by several processes are those that one draws."""

import subprocess
from typing import Any

import pytest

from loopscope.report.plots.drawing import Drawing
from loopscope.report.plots.figure import Figure, Series
from loopscope.report.plots.sheet import sheet


def figure(number: int) -> Figure:
    line = Series(name="dense/raw", x=(1.0, 2.0), y=(1.0, float(number + 1)), color="#336699")
    return Figure(
        key=f"figure-{number}",
        title=f"Figure {number}",
        caption="",
        x_label="loop",
        y_label="nats",
        series=(line,),
    )


FIGURES = [figure(number) for number in range(3)]


def test_two_processes_draw_what_one_draws() -> None:
    drawing = Drawing(FIGURES, processes=2)
    assert len(drawing._others) == 1
    shared = drawing.sheets()
    assert all(process is not None and process.returncode == 0 for _, process in drawing._others)
    assert shared == {figure.key: sheet([figure], figure.title) for figure in FIGURES}


@pytest.mark.parametrize("ending", ["cannot start", "ends early"])
def test_a_process_that_does_not_draw_costs_nothing_but_time(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen

    def popen(command: list[str], **settings: Any) -> Any:
        if ending == "cannot start":
            raise OSError("no more processes")
        return real([command[0], "-c", "raise SystemExit(3)"], **settings)

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert sorted(Drawing(FIGURES, processes=3).sheets()) == ["figure-0", "figure-1", "figure-2"]


def test_a_few_figures_are_drawn_here() -> None:
    assert Drawing(FIGURES)._others == []
