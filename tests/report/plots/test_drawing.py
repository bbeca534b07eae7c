"""Figures drawn by several processes are those that one draws."""

import subprocess
from typing import Any

import pytest

from loopscope.report.plots.drawing import Drawing, Job
from loopscope.report.plots.figure import Figure, Series
from loopscope.report.plots.to_matplotlib import sheet


def job(number: int) -> Job:
    line = Series(name="dense/raw", x=(1.0, 2.0), y=(1.0, float(number + 1)), color="#336699")
    figure = Figure(
        key=f"figure-{number}",
        title=f"Figure {number}",
        caption="",
        x_label="loop",
        y_label="nats",
        series=(line,),
    )
    return Job(figure.key, (figure,), figure.title)


JOBS = [job(number) for number in range(3)]


def drawn(processes: int) -> tuple[dict[str, Any], Drawing]:
    with Drawing(len(JOBS), processes) as drawing:
        drawing.begin(JOBS)
        return dict(drawing.sheets()), drawing


def test_two_processes_draw_what_one_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    own: list[str] = []
    monkeypatch.setattr("loopscope.report.plots.drawing._draw", lambda job: own.append(job.key))
    with Drawing(len(JOBS), processes=2) as drawing:
        drawing.begin(JOBS)
        drawing._threads[0].join()  # until the other one has drawn all
        shared = dict(drawing.sheets())
    (process,) = drawing._others
    assert process.returncode == 0
    assert own == []
    assert shared == {one.key: sheet(one.figures, one.title) for one in JOBS}


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
    assert sorted(drawn(processes=3)[0]) == ["figure-0", "figure-1", "figure-2"]


def test_a_few_figures_are_drawn_here() -> None:
    assert Drawing(len(JOBS))._others == []


def test_processes_end_where_a_page_cannot_be_made() -> None:
    drawing = Drawing(len(JOBS), processes=2)
    with pytest.raises(ValueError, match="no results"), drawing:
        raise ValueError("no results")
    assert [process.returncode for process in drawing._others] == [0]
