"""Names above panels that stand side by side: however long, none reaches into the next."""

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from loopscope.report.plots.figure import Figure, Series
from loopscope.report.plots.to_matplotlib import draw

LONG = "dense/rmsnorm with a name that somebody gave it for a reason, number "


@pytest.mark.parametrize("panels", [2, 3, 5])
def test_names_of_panels_do_not_overlap(panels: int) -> None:
    series = tuple(Series("s", (1.0, 2.0), (1.0, 2.0), "#333333", panel=panel) for panel in range(panels))
    names = tuple(f"{LONG}{panel}" for panel in range(panels))
    canvas = draw([Figure("key", "title", "", "loop", "scale", series, names)], "title")
    FigureCanvasAgg(canvas).draw()
    titles = [axes.get_title(loc="left") for axes in canvas.axes]
    assert len(set(titles)) == panels
    ends = [text.get_window_extent() for axes in canvas.axes for text in [axes._left_title]]
    assert all(one.x1 < other.x0 for one, other in pairwise(ends))
