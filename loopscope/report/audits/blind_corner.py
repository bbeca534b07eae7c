"""The map: what is carried against what is seen, one point per loop, with the blind corner marked."""

import math
from collections.abc import Sequence
from dataclasses import replace

from loopscope.report.audits.models import MOST_MODELS, ModelView
from loopscope.report.audits.verdict_styles import GROWN_IN_WORDS, STATUS_STYLES, loop_names
from loopscope.report.plots.figure import Area, Figure, Series, Symbol
from loopscope.report.plots.label_places import cloud_labels, place_labels
from loopscope.report.plots.ticks import power_of_ten
from loopscope.report.study.table import number
from loopscope.results import REMOVED, SEEN, WORST_FIRST, LoopVerdict

FLOOR = 1e-10
"""Exposures below it are drawn on it: fp32 rounding alone makes more than this."""
CEILING = 1e12
"""Exposures above it are drawn on it."""
FURTHEST = 10.0
"""Carries above it are drawn on it: ten times as much as was put in is no longer a matter of degree."""
_WIDTH, _HEIGHT = 1090.0, 370.0
"""Pixels of the plotting area on a wide page, for placing labels."""


def blind_corner(models: Sequence[ModelView]) -> Figure:
    """Draw the map of loops: carry across, exposure up.

    Colours are those of the page's conditions; shapes tell the verdicts.
    """
    on = models[:MOST_MODELS]
    alone = len(models) == 1
    series = [entry for model in on for entry in _by_verdict(model, alone)]
    turned = [whisker for model in on for whisker in _whiskers(model, model.color)]
    furthest = max([1.0, *(_across(loop) for model in on for loop in _drawn(model))])
    drawn = [value for entry in (*turned, *series) for value in entry.y]
    highest = max([1.0, *drawn])
    span = ((-0.04 * furthest, 1.06 * furthest), (FLOOR / 12, 10.0 ** math.ceil(math.log10(highest) + 0.3)))
    return Figure(
        key="audit-blind-corner",
        title="What is carried, and what is seen",
        caption=_caption(models, on, turned=bool(turned)),
        x_label="carry: share of a change of scale that arrives one loop later",
        y_label="exposure, nats per e-fold of scale",
        series=(*turned, *_labelled(series, *span)),
        log_y=True,
        wide=True,
        height=460,
        areas=(
            Area(
                "blind corner: carried on, and no loss term sees it",
                "#d55e00",
                (REMOVED, None),
                (None, SEEN),
                "bottom right",
            ),
            Area("removed", "#0072b2", (None, REMOVED), (None, None), "middle center", upright=False),
            Area("seen by the loss", "#009e73", (REMOVED, None), (SEEN, None), "top right"),
        ),
        x_range=span[0],
        y_range=span[1],
        x_ticks=_percents(*span[0]),
        y_ticks=(
            (FLOOR, "nil"),
            *((10.0**k, power_of_ten(k)) for k in range(-8, round(math.log10(span[1][1])) + 1, 2)),
        ),
    )


def _across(loop: LoopVerdict) -> float:
    return min(abs(loop.carry), FURTHEST)


def _height(exposure: float) -> float:
    return min(max(exposure, FLOOR), CEILING)


def _drawn(model: ModelView) -> list[LoopVerdict]:
    return [loop for loop in model.report.loops if math.isfinite(loop.carry) and math.isfinite(loop.exposure)]


def _points(
    name: str, color: str, model: ModelView, loops: Sequence[LoopVerdict], symbol: Symbol, in_legend: bool
) -> Series:
    notes = tuple(
        f"loop {loop.loop}: {loop.status}, direct visibility {number(loop.direct)}"
        + (", the last: carried nowhere in training" if loop.loop == model.trained else "")
        for loop in loops
    )
    return Series(
        name=name,
        x=tuple(_across(loop) for loop in loops),
        y=tuple(_height(loop.exposure) for loop in loops),
        color=color,
        points_only=True,
        dot=11,
        in_legend=in_legend,
        symbol=symbol,
        hollow=tuple(loop.loop == model.trained for loop in loops),
        labels=tuple(str(loop.loop) for loop in loops),
        notes=notes,
    )


def _by_verdict(model: ModelView, alone: bool) -> list[Series]:
    """The loops joined in order, and a cloud for each status, in the model's colour."""
    loops = _drawn(model)
    entries = [_path(model, loops, model.color, in_legend=not alone)] if loops else []
    for status in WORST_FIRST:
        members = [loop for loop in loops if loop.status == status]
        if not members:
            continue
        name = f"{status}: {loop_names([loop.loop for loop in members])}" if alone else model.name
        entries.append(
            _points(name, model.color, model, members, STATUS_STYLES[status].symbol, in_legend=alone)
        )
    return entries


def _path(model: ModelView, loops: Sequence[LoopVerdict], color: str, in_legend: bool) -> Series:
    """The loops joined in their order."""
    values = tuple(_across(loop) for loop in loops), tuple(_height(loop.exposure) for loop in loops)
    return Series(model.name, *values, color, dash="dot", guide=True, in_legend=in_legend)


def _whiskers(model: ModelView, color: str) -> list[Series]:
    """From a point to what a grown state would meet, where the threshold lies between: the verdict weighs both."""
    return [
        Series(
            f"loop {loop.loop}, grown",
            (_across(loop), _across(loop)),
            (_height(loop.exposure), _height(loop.exposure_grown)),
            color,
            guide=True,
            in_legend=False,
        )
        for loop in _drawn(model)
        if math.isfinite(loop.exposure_grown) and (loop.exposure >= SEEN) != (loop.exposure_grown >= SEEN)
    ]


def _labelled(series: Sequence[Series], x: tuple[float, float], y: tuple[float, float]) -> list[Series]:
    """With labels that are shared where points lie on each other, and placed where they cover nothing."""

    def pixels(entry: Series) -> list[tuple[float, float]]:
        across = [(value - x[0]) / (x[1] - x[0]) * _WIDTH for value in entry.x]
        decades = math.log10(y[1]) - math.log10(y[0])
        return list(
            zip(
                across,
                [(math.log10(value) - math.log10(y[0])) / decades * _HEIGHT for value in entry.y],
                strict=True,
            )
        )

    named = [
        replace(entry, labels=tuple(cloud_labels(pixels(entry), list(map(int, entry.labels)))))
        if entry.labels
        else entry
        for entry in series
    ]
    labelled = [entry for entry in named if entry.labels]
    label_places = iter(
        place_labels(
            [point for entry in labelled for point in pixels(entry)],
            [label for entry in labelled for label in entry.labels],
            _WIDTH,
            _HEIGHT,
        )
    )
    return [replace(entry, places=tuple(next(label_places) for _ in entry.labels)) for entry in named]


def _percents(left: float, right: float) -> tuple[tuple[float, str], ...]:
    step = next(
        (step for step in (0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if (right - left) / step <= 9), (right - left) / 5
    )
    first, last = math.ceil(left / step), math.floor(right / step)
    return tuple((count * step, f"{count * step:.0%}") for count in range(first, last + 1))


def _caption(models: Sequence[ModelView], on: Sequence[ModelView], turned: bool) -> str:
    lost = sum(len(model.report.loops) - len(_drawn(model)) for model in on)
    return (
        "One point per loop, numbered, joined in order. A loop in the lower right carries its scale on while no loss "
        "term meets it: nothing in training holds it. The way out is up (let a term see the scale) or to the left "
        "(remove it between loops). The last loop is hollow: it is carried nowhere in training and takes the verdict "
        "of the loop before it, unless a term sees it itself."
        + (
            ""
            if len(models) == 1
            else " Diamonds are blind, triangles damped, circles visible, squares removed."
        )
        + (
            f" An upright line leads to what a state {GROWN_IN_WORDS} times as large would meet, where that lies "
            "across the threshold: the verdict weighs both."
            if turned
            else ""
        )
        + (f" The first {len(on)} of {len(models)} models." if len(on) < len(models) else "")
        + (f" Not on the map, because not finite: {lost} loops." if lost else "")
    )
