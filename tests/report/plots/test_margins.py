"""Axes have the room that matplotlib's constrained layout would give them, and nothing stands outside the picture."""

import matplotlib
import pytest
from matplotlib.ticker import LogLocator

from loopscope.report.plots.figure import Figure, Mark, Series
from loopscope.report.plots.to_matplotlib import STYLE, draw

NAME = "dense/rmsnorm-with-a-name-that-is-long-"


def figure(panels: int = 1, series: int = 2, log: bool = False, ends: bool = False) -> Figure:
    lines = tuple(
        Series(
            f"{NAME}{number}",
            (1.0, 2.0, 3.0),
            (0.5, 40.0 + number, 2000.0),
            "#336699",
            panel=number % panels,
            label_end=f"{NAME}{number}" if ends else "",
        )
        for number in range(series)
    )
    names = tuple(f"panel {panel}" for panel in range(panels)) if panels > 1 else ("",)
    marks = (Mark("x", 2.0, "trained to loop 2"),)
    return Figure("key", "Title", "", "loop", "L2 norm", lines, names, log_y=log, marks=marks)


DRAWINGS = {
    "one panel": ([figure()], "Title"),
    "a legend in rows below": ([figure(series=9)], "Title"),
    "many panels, log": ([figure(panels=6, series=12, log=True)], "Title"),
    "names beside lines": ([figure(ends=True)], "Title"),
    "two figures, each with its title": ([figure(), figure(log=True)], None),
    "long names of rows": (
        [Figure("k", "T", "", "x", "", figure().series, y_ticks=tuple((100.0 * n, NAME) for n in range(9)))],
        "Title",
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_margins_are_those_of_constrained_layout(name: str) -> None:
    canvas = draw(*DRAWINGS[name])
    mine = [ax.get_position().bounds for ax in canvas.axes]
    texts = [text for ax in canvas.axes for text in (*ax.texts, ax.xaxis.label, ax.yaxis.label, ax.title)]
    boxes = [text.get_window_extent() for text in (*canvas.texts, *texts) if text.get_text()]
    boxes += [legend.get_window_extent() for legend in canvas.legends]
    assert boxes
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= canvas.bbox.x1 + 1
        assert box.y1 <= canvas.bbox.y1 + 1
    if name == "names beside lines":  # for which constrained layout does not make room enough
        return
    with matplotlib.rc_context(STYLE):
        for ax in canvas.axes:
            ax.set_in_layout(True)
        canvas.set_layout_engine("constrained")
        canvas.get_layout_engine().execute(canvas)  # type: ignore[union-attr]
    for ax, bounds in zip(canvas.axes, mine, strict=True):
        assert bounds == pytest.approx(ax.get_position().bounds, abs=0.02)


def test_ticks_without_numbers_are_where_matplotlib_has_them() -> None:
    (ax,) = draw([figure(log=True)], "Title").axes
    low, high = ax.get_ylim()
    marks = [line for line in ax.get_children() if getattr(line, "get_marker", lambda: None)() == 0]
    places = [float(place) for line in marks for place in line.get_ydata()]
    expected = [p for p in LogLocator(subs=range(2, 10)).tick_values(low, high) if low <= p <= high]
    assert places == pytest.approx(expected)
    assert ax.yaxis.get_minorticklocs().tolist() == []
