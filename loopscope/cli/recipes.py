"""`loopscope recipes`: the families and sizes that can be named, with what they cost and what holds their scale."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from loopscope.cli.arguments import parse
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
    from rich.console import Console

    table = Table(box=None, pad_edge=False)
    for heading in ("family", "size", "parameters", "loops", "FLOPs/token", "training", "verdict"):
        left = heading in ("family", "size", "verdict")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.family,
            row.size,
            f"{row.parameters:,}",
            str(row.loops),
            f"{row.inference_flops_per_token:.3g}",
            f"{row.training_flops_per_token:.3g}",
            row.verdict,
        )
    console = Console()
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
    table = Table(box=None, pad_edge=False, title="baseline / looped model", title_justify="left")
    table.add_column("baseline", no_wrap=True)
    table.add_column("size", no_wrap=True)
    for heading in ("parameters", "FLOPs/token", "training, terminal", "training, dense"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.baseline,
            row.size,
            f"{row.parameters / 1e6:.3g}M / {row.parameters_looped / 1e6:.3g}M",
            f"{row.inference_flops:.3g} / {row.inference_flops_looped:.3g}",
            f"{row.training_flops:.3g} / {row.training_flops_terminal:.3g}",
            f"{row.training_flops:.3g} / {row.training_flops_dense:.3g}",
        )
    return table
