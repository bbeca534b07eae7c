"""`loopscope recipes`: the families and sizes that can be named, with what they cost and what holds their scale."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from loopscope.cli.arguments import parse
from loopscope.cli.output import output
from loopscope.config.baselines import BASELINES
from loopscope.config.families import FAMILIES

if TYPE_CHECKING:
    from loopscope.plan.catalogue import CatalogueRow, Match


@dataclass(frozen=True)
class Recipes:
    """List families of looped models and their baselines: parameters, FLOPs per token, what holds the state's scale.

    Example:
        loopscope recipes
        loopscope recipes --family huginn
        loopscope recipes --family unlooped-deep
        loopscope train --condition huginn --out runs/huginn
        loopscope train --condition huginn:dense/raw --out runs/huginn-raw
    """

    family: str | None = None
    """One family or baseline; all by default."""
    json: bool = False
    """One JSON object a line instead of a table."""


def recipes(arguments: Sequence[str]) -> None:
    """`loopscope recipes`."""
    command = parse(Recipes, "recipes", arguments)
    from loopscope.plan.catalogue import catalogue_rows, matches

    rows = catalogue_rows(command.family)
    if command.json:
        for row in rows:
            print(json.dumps(asdict(row), ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    headings = ("family", "size", "parameters", "loops", "FLOPs\nper token", "training\nper token", "verdict")
    for heading in headings:
        left = heading in ("family", "size", "verdict")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.family,
            row.size,
            in_short(row.parameters),
            str(row.loops),
            in_short(row.inference_flops_per_token),
            in_short(row.training_flops_per_token),
            row.verdict,
        )
    console = output()
    console.print(table, markup=False)
    for name in dict.fromkeys(row.family for row in rows):
        console.print(_words(name, rows), markup=False, highlight=False)
    if found := matches(command.family):
        console.print(_matched(found))


def _words(name: str, rows: "Sequence[CatalogueRow]") -> str:
    if name in BASELINES:
        baseline = BASELINES[name]
        return f"{name}: matches {baseline.matches}. Differs: {baseline.differs}. {baseline.source}."
    family = FAMILIES[name]
    holds = next(row.holds_scale for row in rows if row.family == name)
    return f"{name}: {holds}. From {family.source}. Departs: {family.departs}."


def _matched(rows: "Sequence[Match]") -> Table:
    """The baselines beside the looped model: each cell is the baseline's number and the looped model's."""
    table = Table(
        box=None,
        pad_edge=False,
        collapse_padding=True,
        title="each baseline / its looped model",
        title_justify="left",
    )
    headings = ("baseline", "size", "parameters", "FLOPs/token", "training, terminal", "training, dense")
    for heading in headings:
        left = heading in headings[:2]
        # Headings may take two lines, numbers may not.
        words = heading.replace(", ", ",\n")
        table.add_column(words, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        both = (
            (row.parameters, row.parameters_looped),
            (row.inference_flops, row.inference_flops_looped),
            (row.training_flops, row.training_flops_terminal),
            (row.training_flops, row.training_flops_dense),
        )
        table.add_row(row.baseline, row.size, *(f"{in_short(one)}/{in_short(other)}" for one, other in both))
    return table


def in_short(number: float) -> str:
    """Return a count in three digits and a unit.

    Example:
        >>> in_short(1_434_652_672)
        '1.43B'
    """
    for unit, sign in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            digits = number / unit
            return f"{digits:.{max(0, 2 - int(math.log10(max(digits, 1.0))))}f}{sign}"
    return f"{number:.0f}"
