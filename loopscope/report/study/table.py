"""The headline table: one row per condition, numbers as text beside the values that sort them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from loopscope.report.looks import Looks
from loopscope.report.plots.ticks import power_of_ten
from loopscope.report.study.conditions import Estimate, StudyCondition, drift_of, looks_of, runaways
from loopscope.results import Beyond, Verdict

MOST_LOOPS = 6
"""Loops shown per quantity; deeper studies show the first, the last and some between."""
_NUMBER = re.compile(r"[+−]?\d[\d,]*(\.\d+)?")


@dataclass(frozen=True)
class TableCell:
    """One cell of a table: text, what it sorts by, and how it is marked."""

    text: str
    sort: float | int | str = ""
    mark: str = ""  # "best", "runaway" or nothing
    interval: str = ""  # "1.1 to 1.3", under the number
    badge: Verdict | Beyond | Literal[""] = ""  # shown as a verdict, with its shape and colour


@dataclass(frozen=True)
class HeadlineTable:
    """Groups of columns (title, loop headings) and rows of cells."""

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[tuple[TableCell, ...], ...]

    @property
    def columns(self) -> int:
        """How many columns there are, which decides how small they are printed."""
        return sum(len(headings) for _, headings in self.groups)

    @cached_property
    def pads(self) -> tuple[tuple[str, ...], ...]:
        """Per cell, what would have to follow its number for the decimal points of the column to stand in line.

        The page takes the room and shows nothing there: a number has the digits it has.
        """
        columns = [_column_pads([cell.text for cell in column]) for column in zip(*self.rows, strict=True)]
        return tuple(zip(*columns, strict=True))


def _column_pads(texts: Sequence[str]) -> list[str]:
    decimals = [(found[1] or "") if (found := _NUMBER.fullmatch(text)) else None for text in texts]
    longest = max((entry for entry in decimals if entry is not None), key=len, default="")
    zeros = longest[:1] + "0" * (len(longest) - 1)
    return ["" if entry is None else zeros[len(entry) :] for entry in decimals]


def headline(conditions: Sequence[StudyCondition], looks: Looks | None = None) -> HeadlineTable:
    """Return the table that heads a report: perplexity, bits per byte and L2 norm per loop, drift, how runs ended.

    Args:
        looks: those of the page; by default of a page that has nothing else.
    """
    looks = looks or looks_of(conditions)
    deepest = max((condition.loops for condition in conditions), default=0)
    loops = choose_loops(deepest)
    headings = tuple(f"loop {loop}" for loop in loops)
    quantities = (
        ("perplexity", "perplexity"),
        ("bits per byte", "bits_per_byte"),
        ("L2 norm of H", "l2_norm"),
    )
    best = {field: [_lowest(conditions, field, loop) for loop in loops] for _, field in quantities[:2]}
    running_away = [id(condition) for condition in runaways(conditions)]
    lossy = any(run.unknown_share for condition in conditions for run in condition.runs)
    rows = []
    for condition in conditions:
        name = looks.of(condition.name, condition.size).name
        cells = [TableCell(name, name), _seeds(condition)]
        for _, field in quantities:
            estimates = condition.per_loop(field)
            for column, loop in enumerate(loops):
                if loop > len(estimates):
                    cells.append(TableCell("", math.inf))
                    continue
                value = estimates[loop - 1]
                if field == "l2_norm":
                    mark = "runaway" if id(condition) in running_away else ""
                else:
                    mark = "best" if value.mean == best[field][column] and len(conditions) > 1 else ""
                cells.append(estimate_cell(value, mark))
        cells.append(estimate_cell(drift_of(condition)))
        if lossy:
            cells.append(_unknown(condition))
        rows.append(tuple(cells))
    last = ("drift", "unknown tokens") if lossy else ("drift",)
    groups = (("", ("condition", "seeds")), *((title, headings) for title, _ in quantities), ("", last))
    return HeadlineTable(groups, tuple(rows))


def number(value: float) -> str:
    """Write a number for a sentence: three or four figures, or a power of ten where that would be long."""
    if not math.isfinite(value):
        return "not finite"
    if value and (abs(value) >= 1e7 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}·{power_of_ten(int(exponent))}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def figures(value: float) -> str:
    """Write a number for a table: as `number` does, with the zeros that it leaves out (`2.80`, `17.0`)."""
    text = number(value)
    if not math.isfinite(value) or "·" in text or value == 0 or abs(value) >= 100:
        return text
    return f"{value:#.3g}".removesuffix(".")


def estimate_cell(value: Estimate, mark: str = "") -> TableCell:
    """Return the cell of a mean over seeds, with its interval below where it has one."""
    if not value.values:
        return TableCell("", math.inf)
    interval = (
        "" if value.low is None or value.high is None else f"{figures(value.low)} to {figures(value.high)}"
    )
    sort = value.mean if math.isfinite(value.mean) else math.inf
    return TableCell(figures(value.mean), sort, mark, interval)


def _unknown(condition: StudyCondition) -> TableCell:
    """The largest share of unknown tokens in the text of a condition's runs."""
    share = max((run.unknown_share or 0.0 for run in condition.runs), default=0.0)
    return TableCell(f"{100 * share:.1f} %", share)


def _seeds(condition: StudyCondition) -> TableCell:
    done, all_of = len(condition.completed), len(condition.runs)
    if done == all_of:
        return TableCell(str(done), done)
    ended = [run.status for run in condition.runs if run not in condition.completed]
    kinds = ", ".join(f"{ended.count(kind)} {kind}" for kind in ("diverged", "failed") if kind in ended)
    return TableCell(f"{done} of {all_of}", done, "", kinds)


def _lowest(conditions: Sequence[StudyCondition], field: str, loop: int) -> float:
    values = [c.per_loop(field)[loop - 1].mean for c in conditions if c.loops >= loop]
    return min((value for value in values if math.isfinite(value)), default=math.nan)


def choose_loops(deepest: int, most: int = MOST_LOOPS) -> list[int]:
    """Return at most `most` of the loops 1..deepest, evenly spread, with the first and the last."""
    if deepest <= most:
        return list(range(1, deepest + 1))
    return sorted({1 + round(share * (deepest - 1) / (most - 1)) for share in range(most)})
