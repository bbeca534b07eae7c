"""Which depth is worth running: one row per condition, one cell per loop, darkest where quality is best."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.said import percent
from loopscope.report.evaluations.shown import Group, best_loop
from loopscope.report.figures import SHADES, Figure, Grid, Mark, shortened
from loopscope.report.statistics import Estimate
from loopscope.report.tables import number

WITHIN = (0.01, 0.05, 0.20)
"""Excess of perplexity over the condition's best loop up to which a cell is of a class; the last class is beyond."""
_CLASSES = (*(f"within {share:.0%} of its best".replace("%", " %") for share in WITHIN), "further off")
assert len(_CLASSES) == len(SHADES)
_NAME, _ROW = 30, 34  # letters of a name, pixels of a row
_TICKS = 24


def glance(groups: Sequence[Group]) -> Figure:
    """Best conditions on top. Rows without a finite loss are left out."""
    ordered = sorted((group for group in groups if best_loop(group.per_loop("loss"))), key=_quality)
    loops = sorted({loop for group in ordered for loop in group.per_loop("loss")})
    rows = [_row(group, loops) for group in ordered]
    depths = {group.trained for group in ordered}
    seeds = max((len(group.curves(group.reading)) for group in ordered), default=0)
    verdicts = any(group.verdict for group in ordered)
    return Figure(
        key="evaluation-worth",
        title="Which depth is worth running",
        caption="Every loop's perplexity against the best loop of the same condition; cells of the strongest green are "
        "within 1 % of it. Right of the upright line: more loops than trained. Beside each row: bits per byte at its "
        f"best loop{', and what more loops than trained do' if verdicts else ''}. "
        + ("Means over seeds. " if seeds > 1 else "One seed: no intervals. ")
        + ("The best condition is on top." if len(ordered) > 1 else ""),
        x_label="loop",
        y_label="",
        series=(),
        grid=Grid(
            x=tuple(map(float, loops)),
            rows=tuple(group.name for group in ordered),
            classes=_CLASSES,
            shades=tuple(tuple(shade for shade, _, _ in row) for row in rows),
            texts=tuple(tuple(text for _, text, _ in row) for row in rows),
            notes=tuple(tuple(note for _, _, note in row) for row in rows),
            ends=tuple(map(_end, ordered)),
        ),
        wide=True,
        whole_x=True,
        x_ticks=tuple((float(loop), str(loop)) for loop in loops) if len(loops) <= _TICKS else (),
        x_range=(loops[0] - 0.5, loops[-1] + 0.5) if loops else None,
        y_range=(0.5 - len(ordered), 0.5),
        y_ticks=tuple((-float(row), shortened(group.name, _NAME)) for row, group in enumerate(ordered)),
        marks=tuple(
            Mark(
                "x",
                group.trained + 0.5,
                "trained up to here" if row == 0 and len(depths) == 1 else "",
                between=(-row - 0.5, 0.5 - row),
            )
            for row, group in enumerate(ordered)
            if loops and loops[0] <= group.trained < loops[-1]
        ),
        height=140 + _ROW * max(2, len(ordered)),
        least=600 if len(loops) > 6 else 480,
    )


def _quality(group: Group) -> float:
    losses = group.per_loop("bits_per_byte")
    return losses[best_loop(losses) or 1].mean


def _row(group: Group, loops: Sequence[int]) -> list[tuple[int | None, str, str]]:
    losses, bits = group.per_loop("loss"), group.per_loop("bits_per_byte")
    best = best_loop(losses)
    assert best is not None
    return [_cell(group, loop, best, losses, bits) for loop in loops]


def _cell(
    group: Group, loop: int, best: int, losses: dict[int, Estimate], bits: dict[int, Estimate]
) -> tuple[int | None, str, str]:
    if loop not in losses:
        return None, "", ""
    above = losses[loop].mean - losses[best].mean
    excess = math.expm1(min(above, 700.0)) if math.isfinite(above) else math.inf
    shade = next((place for place, most in enumerate(WITHIN) if excess <= most), len(WITHIN))
    text = "best" if loop == best else "∞" if excess > 1e4 else percent(excess).replace(" ", "")
    value = bits[loop]
    interval = f" ± {number(value.half)}" if value.half is not None else ""
    said = "the best loop" if loop == best else f"perplexity {percent(excess)} of the best loop's"
    if loop != best and excess < 1:
        said = f"perplexity {percent(excess)} against loop {best}"
    return shade, text, f"{group.name}, loop {loop}: {number(value.mean)}{interval} bits per byte, {said}"


def _end(group: Group) -> str:
    verdict = f" · {group.verdict.beyond}" if group.verdict else ""
    return f"{number(_quality(group))}{verdict}"
