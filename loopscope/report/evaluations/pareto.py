"""Quality against what it costs: every condition at every depth, the front highlighted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from loopscope.report.evaluations.formatting import cell, interval_text
from loopscope.report.looks import ConditionStyle, Looks
from loopscope.report.plots.figure import Figure, Series, spans_decades
from loopscope.report.study.table import HeadlineTable, TableCell, number
from loopscope.results import Comparison, EqualFlops, Option

_FRONT = "#b8860b"
_Cost = Callable[[Option], float | None]


def against_loops(comparison: Comparison, looks: Looks) -> Figure:
    """Draw bits per byte against loops, of what loops: a loop of an unlooped model is no loop of the others."""
    unlooped = {entry.condition for entry in comparison.matched if entry.role != "looped"}
    looped = replace(comparison, options=tuple(o for o in comparison.options if o.condition not in unlooped))
    return _figure(
        looped,
        looks,
        "loops",
        "Quality against loops",
        "Every condition at every depth. Full dots on the golden line: nothing else is as good with as few loops.",
        "loops",
        lambda option: float(option.loops),
        lambda option: option.best_for_loops,
    )


def against_flops(comparison: Comparison, looks: Looks) -> Figure:
    """Draw bits per byte against counted arithmetic: per byte of text, or per token in records of before."""
    by_byte = any(option.flops_per_byte is not None for option in comparison.options)
    how = comparison.settings.get("flops", "")
    return _figure(
        comparison,
        looks,
        "flops",
        "Quality against counted arithmetic",
        "Every condition at every depth, by the arithmetic of a forward. Unlike loops, this compares models of "
        "different sizes. Full dots on the golden line: nothing else is as good with as little."
        + (f" {how}." if how else ""),
        "forward FLOPs per byte of text" if by_byte else "forward FLOPs per token",
        lambda option: option.flops_per_byte if by_byte else option.flops_per_token,
        (lambda option: option.best_for_flops) if by_byte else (lambda option: option.best_for_time),
    )


def against_time(comparison: Comparison, looks: Looks) -> Figure | None:
    """Draw bits per byte against measured seconds; None where any option was not timed."""
    if any(option.seconds_per_token is None for option in comparison.options):
        return None
    return _figure(
        comparison,
        looks,
        "time",
        "Quality against measured time",
        "The same, by what a token costs in measured time.",
        "microseconds per token",
        lambda option: None if option.seconds_per_token is None else 1e6 * option.seconds_per_token,
        lambda option: option.best_for_time,
    )


def equal_flops_table(comparison: Comparison, looks: Looks) -> HeadlineTable | None:
    """Return who is ahead from which amount of arithmetic on, one row per amount; None where nothing was counted."""
    headings = (
        ("", ("ahead", "FLOPs per byte, from")),
        ("it", ("loops", "bits per byte")),
        ("best other within as many", ("condition", "loops", "behind by")),
    )
    rows = tuple(_ahead(entry, looks) for entry in comparison.equal_flops)
    return HeadlineTable(headings, rows) if rows else None


def _ahead(entry: EqualFlops, looks: Looks) -> tuple[TableCell, ...]:
    name = looks.of(entry.condition).name
    second = "" if entry.second is None else looks.of(entry.second).name
    loops = entry.second_loops
    return (
        TableCell(name, name),
        TableCell(number(entry.flops_per_byte), entry.flops_per_byte),
        TableCell(str(entry.loops), entry.loops),
        cell(entry.bits_per_byte),
        TableCell(second, second),
        TableCell("", math.inf) if loops is None else TableCell(str(loops), loops),
        TableCell("", math.inf) if entry.behind is None else cell(entry.behind, plus=True),
    )


def _figure(
    comparison: Comparison,
    looks: Looks,
    key: str,
    title: str,
    caption: str,
    x_label: str,
    cost: _Cost,
    best: Callable[[Option], bool],
) -> Figure:
    kept = [
        (option, at)
        for option in comparison.options
        if (at := cost(option)) is not None
        and math.isfinite(at)
        and at > 0
        and math.isfinite(option.bits_per_byte.mean)
    ]
    costs = [at for _, at in kept]
    bits = [option.bits_per_byte.mean for option, _ in kept]
    log_x = key != "loops" and spans_decades(costs, 8)
    log_y = spans_decades(bits, 3)
    series = []
    front = sorted((at, option.bits_per_byte.mean) for option, at in kept if best(option))
    if len(front) > 1:
        series.append(
            Series(
                "front",
                tuple(at for at, _ in front),
                tuple(y for _, y in front),
                _FRONT,
                guide=True,
                thick=True,
            )
        )
    for name in sorted({option.condition for option, _ in kept}, key=lambda name: looks.of(name).place):
        mine = sorted(
            ((option, at) for option, at in kept if option.condition == name), key=lambda pair: pair[1]
        )
        series += _condition(looks.of(name), mine, best)
    left_out = len(comparison.options) - len(kept)
    return Figure(
        key=f"evaluation-pareto-{key}",
        title=title,
        caption=caption + (f" Without a finite figure, not drawn: {left_out}." if left_out else ""),
        x_label=x_label,
        y_label="bits per byte",
        series=tuple(series),
        whole_x=key == "loops",
        log_x=log_x,
        log_y=log_y,
    )


def _condition(
    look: ConditionStyle, mine: Sequence[tuple[Option, float]], best: Callable[[Option], bool]
) -> list[Series]:
    x = tuple(at for _, at in mine)
    y = tuple(option.bits_per_byte.mean for option, _ in mine)
    cloud = Series(
        look.name,
        x,
        y,
        look.color,
        points_only=True,
        dot=9,
        hollow=tuple(not best(option) for option, _ in mine),
        notes=tuple(_note(option) for option, _ in mine),
    )
    line = Series(look.name, x, y, look.color, guide=True, in_legend=False)
    return [line, cloud] if len(x) > 1 else [cloud]


def _note(option: Option) -> str:
    interval = interval_text(option.bits_per_byte)
    quality = f"{number(option.bits_per_byte.mean)} bits per byte" + (f" ({interval})" if interval else "")
    return f"loop {option.loops}: {quality}"
