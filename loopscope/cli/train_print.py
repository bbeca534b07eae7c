"""What `loopscope train` and `loopscope study` print when they are done."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopscope.results import RunResult


def print_results(runs: Sequence["RunResult"], folder: Path, quiet: bool) -> None:
    """A table of the final evaluation; the same figures are in the folder's results."""
    if quiet:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(folder), title_justify="left")
    headings = ("condition", "seed", "status", "perplexity", "bits per byte", "L2 norm, first and last loop")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("condition", "status") else "right")
    lossy = any(run.unknown_share for run in runs)  # bits per byte are then too low
    if lossy:
        table.add_column("unknown tokens", justify="right")
    for run in runs:
        first, last = (run.per_loop[0], run.per_loop[-1]) if run.per_loop else (None, None)
        table.add_row(
            run.condition,
            str(run.seed),
            run.status,
            f"{last.perplexity:.4g}" if last else "",
            # A task's symbols have no bytes.
            f"{last.bits_per_byte:.3f}" if last and not math.isnan(last.bits_per_byte) else "",
            f"{first.l2_norm:.3g}  {last.l2_norm:.3g}" if first and last else "",
            *(["" if run.unknown_share is None else f"{run.unknown_share:.1%}"] if lossy else []),
        )
    console = Console()
    if console.is_terminal:
        console.print(table, markup=False)
        return
    # A file is as wide as its lines: nothing is wrapped, and no blanks end a line.
    with (wide := Console(width=200)).capture() as captured:
        wide.print(table, markup=False)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_next(runs: Sequence["RunResult"], folder: Path, quiet: bool) -> None:
    """The commands that look at what was trained, where any of it completed."""
    if quiet or not any(run.status == "completed" for run in runs):
        return
    name = shlex.quote(str(folder))
    print(
        f"next: loopscope audit {name}  (which loops carry a scale that no loss sees), loopscope report {name}"
    )
