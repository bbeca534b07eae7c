"""The figures of a study: scale and quality by condition."""

import math
from collections.abc import Mapping, Sequence

from loopscope.report.plots.figure import Area, Figure, Series, line_style, ramp
from loopscope.report.study.conditions import StudyCondition, averaged_curves, labels, mean_exit


def build_figures(conditions: Sequence[StudyCondition]) -> list[Figure]:
    """Make all figures that the runs have data for."""
    completed = [condition for condition in conditions if condition.completed]
    colors = {id(condition): line_style(number) for number, condition in enumerate(conditions)}
    names = {id(c): name for c, name in zip(conditions, labels(conditions), strict=True)}
    makers = (
        _last_scale_over_training,
        _perplexity_by_loop,
        _scale_over_training,
        _scale_by_loop,
        _learning,
        _corner,
    )
    figures = [make(completed, names, colors) for make in makers] if completed else []
    return [figure for figure in figures if figure.series]


Names = dict[int, str]
Colors = dict[int, tuple[str, str]]


def _last_scale_over_training(conditions: Sequence[StudyCondition], names: Names, colors: Colors) -> Figure:
    series = []
    for condition in conditions:
        points = averaged_curves(condition.completed)
        color, dash = colors[id(condition)]
        steps, values = _curve(points, condition.loops - 1)
        final = f"{names[id(condition)]}: {_short(values[-1])}" if values else ""
        if steps:
            series.append(Series(names[id(condition)], steps, values, color, dash, label_end=final))
    return Figure(
        key="scale-last-loop",
        title="Scale at the last loop, over training",
        caption="Mean L2 norm of the hidden state at the last loop, before any readout. A line that keeps climbing "
        "is a state that nothing in the loss holds.",
        x_label="training step",
        y_label="L2 norm at the last loop",
        series=tuple(series),
        log_y=True,
    )


def _scale_over_training(conditions: Sequence[StudyCondition], names: Names, colors: Colors) -> Figure:
    series = []
    panels = conditions[:8]
    for panel, condition in enumerate(panels):
        points = averaged_curves(condition.completed)
        for loop in range(condition.loops):
            steps, values = _curve(points, loop)
            if steps:
                series.append(
                    Series(f"loop {loop + 1}", steps, values, ramp(loop, condition.loops), panel=panel)
                )
    more = (
        "" if len(panels) == len(conditions) else f" The first {len(panels)} of {len(conditions)} conditions."
    )
    return Figure(
        key="scale-per-loop",
        title="Scale of every loop, over training",
        caption="One panel per condition, one line per loop, from orange (first) to violet (last). Lines that fan out "
        f"show a recurrence that adds to its own state.{more}",
        x_label="training step",
        y_label="L2 norm",
        series=tuple(series),
        panels=tuple(names[id(condition)] for condition in panels),
        wide=True,
        log_y=True,
    )


def _scale_by_loop(conditions: Sequence[StudyCondition], names: Names, colors: Colors) -> Figure:
    return Figure(
        key="scale-by-loop",
        title="Scale by loop, after training",
        caption="Mean L2 norm of the state at every exit on the validation set.",
        x_label="loop",
        y_label="L2 norm",
        series=_by_loop(conditions, names, colors, "l2_norm"),
        log_y=True,
        whole_x=True,
    )


def _perplexity_by_loop(conditions: Sequence[StudyCondition], names: Names, colors: Colors) -> Figure:
    series = _by_loop(conditions, names, colors, "perplexity")
    values = [value for entry in series for value in entry.y if math.isfinite(value) and value > 0]
    return Figure(
        key="perplexity-by-loop",
        title="Perplexity by loop",
        caption="What each exit is worth. Where only the last loop is trained, earlier exits are useless. "
        "Compare within one tokenizer; the table has bits per byte.",
        x_label="loop",
        y_label="validation perplexity",
        series=series,
        log_y=bool(values) and max(values) > 10 * min(values),
        whole_x=True,
    )


def _corner(conditions: Sequence[StudyCondition], names: Names, colors: Colors) -> Figure:
    series, scales, exits = [], [], []
    for condition in conditions:
        x = condition.of(lambda run: run.per_loop[-1].l2_norm)
        y = condition.of(lambda run: mean_exit(run.per_loop))
        if not (math.isfinite(x.mean) and math.isfinite(y.mean) and x.mean > 0 and y.mean > 0):
            continue
        color, _ = colors[id(condition)]
        name = names[id(condition)]
        series.append(Series(name, (x.mean,), (y.mean,), color, points_only=True, label_end=name))
        if len(x.values) > 1:
            series.append(Series(name, x.values, y.values, color, points_only=True, faint=True))
        scales.append(x.mean)
        exits.append(y.mean)
    areas: tuple[Area, ...] = ()
    if len(scales) > 1:
        good = min(exits) + 0.25 * (max(exits) - min(exits))
        areas = (Area("every exit good, scale held", "#009e73", (None, 2 * min(scales)), (None, good)),)
    values = scales + exits
    return Figure(
        key="exits-against-scale",
        title="Quality of exits against control of scale",
        caption="Across: L2 norm at the last loop. Up: bits per byte, averaged over exits. The shaded "
        "corner (scale within twice the smallest, exits within a quarter of the range above the best) is "
        "where one wants to be."
        + (" Faint points are seeds." if any(entry.faint for entry in series) else ""),
        x_label="L2 norm at the last loop",
        y_label="bits per byte, mean of all exits",
        series=tuple(series),
        log_x=True,
        wide=True,
        log_y=bool(values) and max(exits) > 4 * min(exits),
        areas=areas,
    )


def _learning(conditions: Sequence[StudyCondition], names: Names, colors: Colors) -> Figure:
    series = []
    for condition in conditions:
        by_step: dict[int, list[float]] = {}
        for run in condition.completed:
            for point in run.evaluations:
                if point.per_loop:
                    by_step.setdefault(point.step, []).append(point.per_loop[-1].bits_per_byte)
        kept = {step: sum(v) / len(v) for step, v in sorted(by_step.items()) if all(map(math.isfinite, v))}
        color, dash = colors[id(condition)]
        if len(kept) > 1:
            series.append(
                Series(names[id(condition)], tuple(map(float, kept)), tuple(kept.values()), color, dash)
            )
    return Figure(
        key="learning",
        title="Learning at the last loop",
        caption="Bits per byte of the last exit at every evaluation. Evaluations during training may use fewer "
        "windows than the last one.",
        x_label="training step",
        y_label="bits per byte, last loop",
        series=tuple(series),
    )


def _by_loop(
    conditions: Sequence[StudyCondition], names: Names, colors: Colors, field: str
) -> tuple[Series, ...]:
    series = []
    for condition in conditions:
        estimates = condition.per_loop(field)
        kept = [(k, e) for k, e in enumerate(estimates, start=1) if math.isfinite(e.mean) and e.mean > 0]
        if not kept:
            continue
        color, dash = colors[id(condition)]
        bands = any(e.half is not None for _, e in kept)
        series.append(
            Series(
                names[id(condition)],
                tuple(float(k) for k, _ in kept),
                tuple(e.mean for _, e in kept),
                color,
                dash,
                # A log axis has no place for zero: the low end stops just above it.
                low=tuple(max(e.low, e.mean * 1e-3) for _, e in kept) if bands else (),
                high=tuple(e.high for _, e in kept) if bands else (),
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


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
