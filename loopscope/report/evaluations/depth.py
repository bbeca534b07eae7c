"""Depth curves: quality and scale at every loop, past the trained one, over seeds."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.foretold import foretold_lines
from loopscope.report.evaluations.groups import MOST_GROUPS, Group, group_depth_marks, undrawn_groups
from loopscope.report.plots.figure import Figure, Series, span_of_lines, spans_decades
from loopscope.results.evaluations import CurveReading

_LINEAR = 3.0
"""Largest over smallest value up to which an axis stays linear."""


def quality(groups: Sequence[Group]) -> Figure:
    """Draw bits per byte at every loop."""
    both = any(
        len({curve.reading for model in g.models for curve in model.depth}) > 1 for g in groups[:MOST_GROUPS]
    )
    second = (
        " Dashed: the same model with loops below the trained depth read as training read them, as exits of a full "
        "unroll; solid: as the last loop of a shorter one."
        if both
        else ""
    )
    alone = [group.name for group in groups[:MOST_GROUPS] if any(m.depth_conditioned for m in group.models)]
    if alone:
        second += (
            f" The states of {', '.join(alone)} depend on how many loops are run: every depth was run by itself, and "
            "exits on the way of a longer run are others."
        )
    told = any(foretold_lines(group) for group in groups[:MOST_GROUPS])
    foretold = (
        " Dotted: what was foretold of the first seed from two loops past the trained depth." if told else ""
    )
    return _figure(
        groups,
        "bits_per_byte",
        "evaluation-depth",
        "Quality at every depth",
        "Bits per byte on held-out text after every loop; less is better. A line that turns up past the trained depth "
        "is a model that more loops hurt." + second + foretold,
        "bits per byte",
        wide=True,
        readings=True,
    )


def state_norm(groups: Sequence[Group]) -> Figure:
    """Draw the L2 norm of the state at every loop."""
    return _figure(
        groups,
        "l2_norm",
        "evaluation-depth-scale",
        "Scale at every depth",
        "L2 norm of the hidden state on the same text, before any readout. Scale that goes on growing past the trained "
        "depth is scale that nothing holds.",
        "L2 norm",
    )


def accuracy(groups: Sequence[Group]) -> Figure:
    """Draw the share of labels that are the likeliest token, at every loop."""
    return _figure(
        groups,
        "accuracy",
        "evaluation-depth-accuracy",
        "Accuracy at every depth",
        "Share of labels that are the likeliest token, in percent.",
        "labels that are right, %",
        times=100.0,
    )


def exact_match(groups: Sequence[Group]) -> Figure:
    """Draw the share of answers that are right whole, at every loop: tasks only."""
    return _figure(
        groups,
        "exact_match",
        "evaluation-depth-exact",
        "Tasks solved at every depth",
        "Share of windows whose every answer is right, in percent: what depth is for, and perplexity alone hides.",
        "windows all right, %",
        times=100.0,
    )


def _figure(
    groups: Sequence[Group],
    field: str,
    key: str,
    title: str,
    caption: str,
    y_label: str,
    times: float = 1.0,
    wide: bool = False,
    readings: bool = False,
) -> Figure:
    on = groups[:MOST_GROUPS]
    values = [
        entry.mean
        for group in on
        for entry in group.per_loop(field).values()
        if math.isfinite(entry.mean) and entry.mean > 0
    ]
    log = times == 1.0 and spans_decades(values, _LINEAR)
    series = []
    for group in on:
        series += _lines(group, field, group.reading, times, log)
        other: CurveReading = "as trained"
        if readings and group.reading != other and group.curves(other):
            series += _lines(group, field, other, times, log, second=True)
        if readings:
            series += foretold_lines(group)
    bands = any(entry.low for entry in series)
    y_range, cut = span_of_lines(series, log)
    seeds = (
        " The band is a 95 % Student-t interval over seeds."
        if bands
        else " Fewer than three seeds: no bands."
    )
    return Figure(
        key=key,
        title=title,
        caption=caption
        + (seeds if readings else "")
        + (" Wide bands, of few seeds, are cut." if cut else "")
        + undrawn_groups(groups),
        x_label="loop",
        y_label=y_label,
        series=tuple(series),
        log_y=log,
        y_range=y_range,
        whole_x=True,
        wide=wide,
        marks=group_depth_marks(on) if series else (),
    )


def _lines(
    group: Group, field: str, reading: CurveReading, times: float, log: bool, second: bool = False
) -> list[Series]:
    kept = [
        (float(loop), entry)
        for loop, entry in group.per_loop(field, reading).items()
        if math.isfinite(entry.mean) and (entry.mean > 0 or not log) and (loop <= group.trained or not second)
    ]
    if not kept:
        return []
    bands = any(entry.low is not None for _, entry in kept)
    return [
        Series(
            f"{group.name}, exits as trained" if second else group.name,
            tuple(loop for loop, _ in kept),
            tuple(times * entry.mean for _, entry in kept),
            group.color,
            "dash" if second else group.dash,
            # A log axis has no place for zero: a low end there stops just above it.
            low=tuple(times * (max(e.ends[0], e.mean * 1e-3) if log else e.ends[0]) for _, e in kept)
            if bands
            else (),
            high=tuple(times * entry.ends[1] for _, entry in kept) if bands else (),
            in_legend=not second,
        )
    ]
