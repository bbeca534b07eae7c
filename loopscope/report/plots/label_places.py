"""Where to write the labels of points so that they stay readable: near points share one, and none overlap."""

import math
from collections.abc import Sequence

Point = tuple[float, float]

# In pixels of a figure as wide as the page: a letter, a line of text, a point, and how near is one place.
LETTER, LINE, DOT, NEAR = 7.0, 15.0, 13.0, 9.0
PLACES = (
    "top center",
    "bottom center",
    "middle right",
    "middle left",
    "top right",
    "bottom right",
    "top left",
    "bottom left",
)


def cloud_labels(points: Sequence[Point], numbers: Sequence[int]) -> list[str]:
    """Label each cloud of near points once (`1-3`, `2, 4`), at its last point; the others get no label."""
    labels = [""] * len(points)
    left = list(range(len(points)))
    while left:
        cloud = [left.pop(0)]
        for index in cloud:  # grows while it is walked: near to any of the cloud is in the cloud
            near = [other for other in left if math.dist(points[index], points[other]) < NEAR]
            cloud += near
            left = [other for other in left if other not in near]
        members = sorted(numbers[index] for index in cloud)
        run = len(members) > 1 and members == list(range(members[0], members[-1] + 1))
        labels[cloud[-1]] = f"{members[0]}-{members[-1]}" if run else ", ".join(map(str, members))
    return labels


def place_labels(points: Sequence[Point], labels: Sequence[str], width: float, height: float) -> list[str]:
    """Return a place for each label, in plotly's words.

    It is the first that covers no point and no label, or the least bad.
    """
    dots = [_box(x, y, DOT, DOT) for x, y in points]
    taken: list[tuple[float, float, float, float]] = []
    chosen = []
    for (x, y), label in zip(points, labels, strict=True):
        if not label:
            chosen.append(PLACES[0])
            continue
        boxes = [_beside(x, y, LETTER * len(label), place) for place in PLACES]
        costs = [
            round(
                3 * sum(_overlap(box, other) for other in taken)
                + sum(_overlap(box, other) for other in dots)
                + 10 * (_area(box) - _overlap(box, (0, 0, width, height)))
            )
            for box in boxes
        ]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        chosen.append(PLACES[best])
    return chosen


def _beside(x: float, y: float, wide: float, place: str) -> tuple[float, float, float, float]:
    up, side = place.split()
    across = {"left": -1, "center": 0, "right": 1}[side] * (wide / 2 + DOT / 2 + 1)
    along = {"bottom": -1, "middle": 0, "top": 1}[up] * (
        LINE / 2 + (DOT / 2 if side == "center" else DOT / 4)
    )
    return _box(x + across, y + along, wide, LINE)


def _box(x: float, y: float, wide: float, high: float) -> tuple[float, float, float, float]:
    return (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0
