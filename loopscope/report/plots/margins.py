"""Room around axes for what stands there: numbers, labels, titles, names beside lines, a legend below, a title above.

The axes stand in one row and are of one width, so their margins are sums. matplotlib's constrained layout solves for
the same margins in general, and measures every text of a drawing several times for it: a third of the time of a
drawing. Here every text is measured once, with the renderer that then draws it, which keeps the measures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from math import isfinite
from typing import Any

from matplotlib.transforms import Bbox, ScaledTranslation

PAD = 3.0
"""Points around everything."""
SPACE = 0.01
"""Share of the whole width between neighbouring axes, where that is more than `PAD`."""
_PASSES = 6
"""Times that texts at places of the axes are measured, at most; nearly always once or twice."""
_GUESS = (44.0, 16.0, 36.0, 20.0)
"""Points left, right, below and above axes before anything is measured: near what it takes, so that ticks stay."""


@dataclass(frozen=True)
class Margins:
    """What stands out of axes on every side, in pixels."""

    left: float
    right: float
    bottom: float
    top: float


def lay_out(canvas: Any, axes: Sequence[Any], title: Any | None) -> None:
    """Place axes side by side, their labels beside their ticks, and the title of all of them on top.

    Args:
        canvas: a figure of matplotlib with an Agg canvas and no layout engine.
        axes: all of its axes, from left to right.
        title: the text that heads them all.
    """
    renderer, pixels = canvas.canvas.get_renderer(), canvas.dpi / 72
    pad, high = PAD * pixels, canvas.bbox.height
    above = below = 0.0
    if title is not None:
        title.set_position((title.get_position()[0], 1 - pad / high))
        above = title.get_window_extent(renderer).height + 2 * pad
    for legend in canvas.legends:
        below = max(below, legend.get_window_extent(renderer).height + 2 * pad)
    guess = Margins(*(points * pixels for points in _GUESS))
    _place(canvas, axes, [guess for _ in axes], above, below)
    ticks = [_beside_axis(ax, renderer, pixels) for ax in axes]
    _place(canvas, axes, ticks, above, below)
    margins = ticks
    for _ in range(_PASSES):  # a name beside the end of a line stands further out once the axes are narrower
        wanted = [_with_texts(ax, renderer, each) for ax, each in zip(axes, margins, strict=True)]
        if wanted == margins:
            return
        margins = wanted
        _place(canvas, axes, margins, above, below)


def _place(canvas: Any, axes: Sequence[Any], margins: Sequence[Margins], above: float, below: float) -> None:
    """Give all axes one width and one height within their margins."""
    wide, high = canvas.bbox.width, canvas.bbox.height
    pad = PAD * canvas.dpi / 72
    between = max(pad, SPACE * wide / len(axes))
    room = sum(each.left + each.right for each in margins) + 2 * pad + 2 * between * (len(axes) - 1)
    width = max(1.0, (wide - room) / len(axes))
    bottom = below + pad + max(each.bottom for each in margins)
    top = above + pad + max(each.top for each in margins)
    left = pad
    for ax, each in zip(axes, margins, strict=True):
        left += each.left
        ax.set_position((left / wide, bottom / high, width / wide, max(1.0, high - bottom - top) / high))
        left += width + each.right + 2 * between


def _beside_axis(ax: Any, renderer: Any, pixels: float) -> Margins:
    """What ticks and labels take; the labels are placed for good, at their distance from the ticks' numbers."""
    boxes = []
    for axis, side in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        axis.label.set_visible(False)  # it is placed below, and by nothing else
        axis.set_label_coords(0.5, 0.5)
        box = axis.get_tightbbox(renderer)
        axis.label.set_visible(True)
        boxes += [] if box is None else [box]
        if not axis.label.get_text():
            continue
        out = axis.labelpad + max(0.0, _out_of(ax, box, side) / pixels)
        place, shift = ((0.5, 0.0), (0.0, -out)) if side == "x" else ((0.0, 0.5), (-out, 0.0))
        inches = ScaledTranslation(shift[0] / 72, shift[1] / 72, ax.figure.dpi_scale_trans)
        axis.set_label_coords(*place, transform=ax.transAxes + inches)
        label = axis.label.get_window_extent(renderer)
        # Along its axis a label takes no room: to move the axes would not help it.
        middle = (label.x0 + label.x1) / 2 if side == "x" else (label.y0 + label.y1) / 2
        flat = (middle, label.y0, middle, label.y1) if side == "x" else (label.x0, middle, label.x1, middle)
        boxes.append(Bbox.from_extents(*flat))
    return _around(ax, boxes)


def _out_of(ax: Any, box: Any, side: str) -> float:
    if box is None:
        return 0.0
    return float(ax.bbox.y0 - box.y0 if side == "x" else ax.bbox.x0 - box.x0)


def _with_texts(ax: Any, renderer: Any, known: Margins) -> Margins:
    """Margins with room for texts at places of the axes; a title takes none of the width."""
    boxes = []
    for text in ax.get_children():
        if not (hasattr(text, "get_text") and text.get_text() and text.get_in_layout()):
            continue
        box = text.get_tightbbox(renderer)
        if box is None or not isfinite(box.width):  # of a point outside the axes, which is not drawn
            continue
        boxes.append(box if text in ax.texts else Bbox.from_extents(ax.bbox.x0, box.y0, ax.bbox.x0, box.y1))
    found = _around(ax, boxes)
    return Margins(*(b if b > a + 0.5 else a for a, b in zip(astuple(known), astuple(found), strict=True)))


def _around(ax: Any, boxes: Iterable[Any]) -> Margins:
    whole = Bbox.union([ax.bbox, *boxes])
    return Margins(ax.bbox.x0 - whole.x0, whole.x1 - ax.bbox.x1, ax.bbox.y0 - whole.y0, whole.y1 - ax.bbox.y1)
