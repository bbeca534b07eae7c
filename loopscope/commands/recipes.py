"""`loopscope recipes`: the families and sizes that can be named, with what they cost and what holds their scale."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from loopscope.arguments import parse
from loopscope.catalogue import catalogue
from loopscope.families import FAMILIES


@dataclass(frozen=True)
class Recipes:
    """List the families of looped models: parameters, FLOPs per token, and what holds the state's scale.

    Example:
        loopscope recipes
        loopscope recipes --family huginn
        loopscope train --condition huginn --out runs/huginn
        loopscope train --condition huginn:dense/raw --out runs/huginn-raw
    """

    family: str | None = None
    """One family; all by default."""
    json: bool = False
    """One JSON object a line instead of a table."""


def recipes(arguments: Sequence[str]) -> None:
    """`loopscope recipes`."""
    command = parse(Recipes, "recipes", arguments)
    rows = catalogue(command.family)
    if command.json:
        for row in rows:
            print(json.dumps(asdict(row), ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

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
    for row in {row.family: row for row in rows}.values():
        family = FAMILIES[row.family]
        text = f"{row.family}: {row.holds_scale}. From {family.source}. Departs: {family.departs}."
        console.print(text, markup=False, highlight=False)
