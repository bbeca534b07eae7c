"""The figures of a study: scale and quality by condition."""

import math
from collections.abc import Mapping, Sequence

from loopscope.report.looks import ConditionStyle, Looks
from loopscope.report.plots.figure import Area, Figure, Series, ramp, span_of_lines
from loopscope.report.study.conditions import StudyCondition, averaged_curves, looks_of, mean_exit
from loopscope.report.study.switches import switch_marks
from loopscope.report.study.table import number

StyledConditions = Sequence[tuple[StudyCondition, ConditionStyle]]


def build_figures(conditions: Sequence[StudyCondition], looks: Looks | None = None) -> list[Figure]:
    """Make all figures that the runs have data for.

    Args:
        looks: those of the page; by default of a page that has nothing else.
    """
    looks = looks or looks_of(conditions)
    shown = [(c, looks.of(c.name, c.size)) for c in conditions if c.completed]
    makers = (
        _last_scale_over_training,
        _perplexity_by_loop,
        _scale_over_training,
        _scale_by_loop,
        _learning,
        _corner,
    )
    figures = [make(shown) for make in makers] if shown else []
    return [figure for figure in figures if figure.series]


def _last_scale_over_training(shown: StyledConditions) -> Figure:
    series = []
    for condition, look in shown:
        points = averaged_curves(condition.completed)
        steps, values = _curve(points, condition.loops - 1)
        final = f"{look.name}: {number(values[-1])}" if values else ""
        if steps:
            series.append(Series(look.name, steps, values, look.color, look.dash, label_end=final))
    return Figure(
        key="scale-last-loop",
        title="Scale at the last loop, over training",
        caption="Mean L2 norm of the hidden state at the last loop, before any readout. A line that keeps climbing "
        "is a state that nothing in the loss holds.",
        x_label="training step",
        y_label="L2 norm at the last loop",
        series=tuple(series),
        log_y=True,
        marks=switch_marks(shown),
    )


def _scale_over_training(shown: StyledConditions) -> Figure:
    series = []
    panels = shown[:8]
    for panel, (condition, _) in enumerate(panels):
        points = averaged_curves(condition.completed)
        for loop in range(condition.loops):
            steps, values = _curve(points, loop)
            if steps:
                series.append(
                    Series(f"loop {loop + 1}", steps, values, ramp(loop, condition.loops), panel=panel)
                )
    more = "" if len(panels) == len(shown) else f" The first {len(panels)} of {len(shown)} conditions."
    return Figure(
        key="scale-per-loop",
        title="Scale of every loop, over training",
        caption="One panel per condition, one line per loop, from orange (first) to violet (last). Lines that fan out "
        f"show a recurrence that adds to its own state.{more}",
        x_label="training step",
        y_label="L2 norm",
        series=tuple(series),
        panels=tuple(look.name for _, look in panels),
        wide=True,
        log_y=True,
        marks=switch_marks(panels, panels=True),
    )


def _scale_by_loop(shown: StyledConditions) -> Figure:
    series = _by_loop(shown, "l2_norm")
    return Figure(
        key="scale-by-loop",
        title="Scale by loop, after training",
        caption=f"Mean L2 norm of the state at every exit on the validation set.{_bands(shown)}",
        x_label="loop",
        y_label="L2 norm",
        series=series,
        log_y=True,
        whole_x=True,
        y_range=span_of_lines(series, log=True)[0],
    )


def _perplexity_by_loop(shown: StyledConditions) -> Figure:
    series = _by_loop(shown, "perplexity")
    values = [value for entry in series for value in entry.y if math.isfinite(value) and value > 0]
    log = bool(values) and max(values) > 10 * min(values)
    return Figure(
        key="perplexity-by-loop",
        title="Perplexity by loop",
        caption="What each exit is worth. An exit that the loss does not train, or that learns slowly, can be of no "
        f"use. Compare within one tokenizer; the table has bits per byte.{_bands(shown)}",
        x_label="loop",
        y_label="validation perplexity",
        series=series,
        log_y=log,
        whole_x=True,
        y_range=span_of_lines(series, log)[0],
    )


def _corner(shown: StyledConditions) -> Figure:
    series, scales, exits = [], [], []
    for condition, look in shown:
        x = condition.of("l2_norm", lambda run: run.per_loop[-1].l2_norm)
        y = condition.of("bits_per_byte", lambda run: mean_exit(run.per_loop))
        if not (math.isfinite(x.mean) and math.isfinite(y.mean) and x.mean > 0 and y.mean > 0):
            continue
        series.append(
            Series(look.name, (x.mean,), (y.mean,), look.color, points_only=True, label_end=look.name)
        )
        if len(x.values) > 1:
            series.append(Series(look.name, x.values, y.values, look.color, points_only=True, faint=True))
        scales.append(x.mean)
        exits.append(y.mean)
    areas: tuple[Area, ...] = ()
    if len(scales) > 1:
        good = min(exits) + 0.25 * (max(exits) - min(exits))
        areas = (Area("every exit good, scale small", "#009e73", (None, 2 * min(scales)), (None, good)),)
    values = scales + exits
    return Figure(
        key="exits-against-scale",
        title="Quality of exits against control of scale",
        caption="Across: L2 norm at the last loop. Up: bits per byte, averaged over exits. The shaded "
        "corner (scale within twice the smallest, exits within a quarter of the range above the best) is "
        "where one wants to be. Small today is not held: whether anything holds a scale is for the audit to say."
        + (" Faint points are seeds." if any(entry.faint for entry in series) else ""),
        x_label="L2 norm at the last loop",
        y_label="bits per byte, mean of all exits",
        series=tuple(series),
        log_x=True,
        wide=True,
        log_y=bool(values) and max(exits) > 4 * min(exits),
        areas=areas,
    )


def _learning(shown: StyledConditions) -> Figure:
    series = []
    for condition, look in shown:
        by_step: dict[int, list[float]] = {}
        for run in condition.completed:
            for point in run.evaluations:
                if point.per_loop:
                    by_step.setdefault(point.step, []).append(point.per_loop[-1].bits_per_byte)
        kept = {step: sum(v) / len(v) for step, v in sorted(by_step.items()) if all(map(math.isfinite, v))}
        if len(kept) > 1:
            series.append(
                Series(look.name, tuple(map(float, kept)), tuple(kept.values()), look.color, look.dash)
            )
    return Figure(
        key="learning",
        title="Learning at the last loop",
        caption="Bits per byte of the last exit at every evaluation. Evaluations during training may use fewer "
        "windows than the last one.",
        x_label="training step",
        y_label="bits per byte, last loop",
        series=tuple(series),
        marks=switch_marks(shown),
    )


def _bands(shown: StyledConditions) -> str:
    """What the bands of a figure are, in a caption; nothing where no condition has seeds enough for one."""
    if not any(entry.low is not None for condition, _ in shown for entry in condition.per_loop("l2_norm")):
        return ""
    return " Bands: 95 % intervals over seeds, on a log scale."


def _by_loop(shown: StyledConditions, field: str) -> tuple[Series, ...]:
    series = []
    for condition, look in shown:
        estimates = condition.per_loop(field)
        kept = [(k, e) for k, e in enumerate(estimates, start=1) if math.isfinite(e.mean) and e.mean > 0]
        if not kept:
            continue
        bands = any(e.low is not None for _, e in kept)
        series.append(
            Series(
                look.name,
                tuple(float(k) for k, _ in kept),
                tuple(e.mean for _, e in kept),
                look.color,
                look.dash,
                low=tuple(e.ends[0] for _, e in kept) if bands else (),
                high=tuple(e.ends[1] for _, e in kept) if bands else (),
            )
        )
    return tuple(series)


def _curve(
    points: Mapping[int, list[tuple[float, ...]]], loop: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Geometric mean over runs, because scales differ by factors."""
    steps, values = [], []
    for step, norms in points.items():
        here = [
            norm[loop] for norm in norms if loop < len(norm) and norm[loop] > 0 and math.isfinite(norm[loop])
        ]
        if here:
            steps.append(float(step))
            values.append(math.exp(sum(map(math.log, here)) / len(here)))
    return tuple(steps), tuple(values)
