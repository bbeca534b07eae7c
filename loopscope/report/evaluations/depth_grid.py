"""Which depth is worth running: one row per condition, one cell per loop, darkest where quality is best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.evaluations.formatting import percent
from loopscope.report.evaluations.groups import Group, best_loop
from loopscope.report.plots.figure import SHADES, Figure, Grid, Mark, shorten_apart
from loopscope.report.study.conditions import Estimate
from loopscope.report.study.table import figures, number
from loopscope.results.evaluations import CurveReading

BANDS = (0.01, 0.05, 0.20)
"""Excess of perplexity over the condition's best loop up to which a cell is of a class; the last class is beyond."""
_CLASSES = (*(f"within {share:.0%} of its best".replace("%", " %") for share in BANDS), "further off")
assert len(_CLASSES) == len(SHADES)
_NAME, _ROW = 30, 34  # letters of a name, pixels of a row
_TICKS = 24


@dataclass(frozen=True)
class _Row:
    """One condition in one reading."""

    group: Group
    reading: CurveReading
    name: str

    def per_loop(self, field: str) -> dict[int, Estimate]:
        return self.group.per_loop(field, self.reading)

    @property
    def quality(self) -> float:
        bits = self.per_loop("bits_per_byte")
        return bits[best_loop(bits) or 1].mean

    @property
    def end(self) -> str:
        judged = self.group.verdict if self.reading == self.group.reading else None
        return figures(self.quality) + (f" · {judged.beyond}" if judged else "")


def glance(groups: Sequence[Group]) -> Figure:
    """Draw the grid of all conditions and loops, in the page's order. Rows without a finite loss are left out."""
    rows = [row for group in groups for row in _readings(group)]
    loops = sorted({loop for row in rows for loop in row.per_loop("loss")})
    cells = [[_cell(row, loop) for loop in loops] for row in rows]
    depths = {row.group.trained for row in rows}
    seeds = max((len(row.group.curves(row.reading)) for row in rows), default=0)
    verdicts = any(row.group.verdict for row in rows)
    exits = any(row.reading != row.group.reading for row in rows)
    names = shorten_apart([row.name for row in rows], _NAME)
    return Figure(
        key="evaluation-worth",
        title="Which depth is worth running",
        caption="Every loop's perplexity against the best loop of the same row; cells of the strongest green are "
        "within 1 % of it. Right of the upright line: more loops than trained. Beside each row: bits per byte at its "
        f"best loop{', and what more loops than trained do' if verdicts else ''}. "
        + (
            "Rows with (exits): loops below the trained depth read as exits of a full unroll. "
            if exits
            else ""
        )
        + ("Means over seeds." if seeds > 1 else "One seed: no intervals."),
        x_label="loop",
        y_label="",
        series=(),
        grid=Grid(
            x=tuple(map(float, loops)),
            rows=tuple(row.name for row in rows),
            classes=_CLASSES,
            shades=tuple(tuple(shade for shade, _, _ in row) for row in cells),
            texts=tuple(tuple(text for _, text, _ in row) for row in cells),
            notes=tuple(tuple(note for _, _, note in row) for row in cells),
            ends=tuple(row.end for row in rows),
        ),
        wide=True,
        whole_x=True,
        x_ticks=tuple((float(loop), str(loop)) for loop in loops) if len(loops) <= _TICKS else (),
        x_range=(loops[0] - 0.5, loops[-1] + 0.5) if loops else None,
        y_range=(0.5 - len(rows), 0.5),
        y_ticks=tuple((-float(place), name) for place, name in enumerate(names)),
        marks=tuple(
            Mark(
                "x",
                row.group.trained + 0.5,
                "trained up to here" if row_number == 0 and len(depths) == 1 else "",
                between=(-row_number - 0.5, 0.5 - row_number),
            )
            for row_number, row in enumerate(rows)
            if loops and loops[0] <= row.group.trained < loops[-1]
        ),
        height=140 + _ROW * max(2, len(rows)),
        least=600 if len(loops) > 6 else 480,
    )


def _readings(group: Group) -> list[_Row]:
    """What a user who runs k loops gets; and exits as trained, where they differ and go below the last loop."""
    other: CurveReading = "as trained"
    rows = [_Row(group, group.reading, group.name)]
    if group.reading != other and group.curves(other):
        rows.append(_Row(group, other, f"{group.name} (exits)"))
    return [row for row in rows if best_loop(row.per_loop("loss"))]


def _cell(row: _Row, loop: int) -> tuple[int | None, str, str]:
    losses, bits = row.per_loop("loss"), row.per_loop("bits_per_byte")
    best = best_loop(losses)
    if loop not in losses or best is None:
        return None, "", ""
    above = losses[loop].mean - losses[best].mean
    excess = math.expm1(min(above, 700.0)) if math.isfinite(above) else math.inf
    shade = next((index for index, most in enumerate(BANDS) if excess <= most), len(BANDS))
    text = "best" if loop == best else "∞" if excess > 1e4 else percent(excess).replace(" ", "")
    value = bits[loop]
    interval = "" if value.low is None else f" ({number(value.ends[0])} to {number(value.ends[1])})"
    explanation = "the best loop" if loop == best else f"perplexity {percent(excess)} of the best loop's"
    if loop != best and excess < 1:
        explanation = f"perplexity {percent(excess)} against loop {best}"
    return (
        shade,
        text,
        f"{row.name}, loop {loop}: {number(value.mean)}{interval} bits per byte, {explanation}",
    )
