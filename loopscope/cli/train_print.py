"""What `loopscope train` and `loopscope study` print when they are done."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loopscope.cli.output import output

if TYPE_CHECKING:
    from rich.table import Table

    from loopscope.results import RunResult

QUANTITIES = (("perplexity", "perplexity"), ("bits per byte", "bits_per_byte"), ("RMS", "rms"))
"""What means over seeds are printed of: heading, and field of the last loop."""


def print_results(runs: Sequence["RunResult"], folder: Path, quiet: bool) -> None:
    """A table of the final evaluation; the same figures are in the folder's results."""
    if quiet:
        return
    table = _table(str(folder))
    headings = ("condition", "seed", "status", "perplexity", "bits per byte", "RMS, first and last loop")
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
            f"{first.rms:.3g}  {last.rms:.3g}" if first and last else "",
            *(["" if run.unknown_share is None else f"{run.unknown_share:.1%}"] if lossy else []),
        )
    output().print(table, markup=False)


def print_means(runs: Sequence["RunResult"], quiet: bool) -> None:
    """A table of the last loop's means over seeds, where a condition has several; intervals as everywhere."""
    completed: dict[str, list[RunResult]] = {run.condition: [] for run in runs}
    for run in runs:
        if run.status == "completed" and run.per_loop:
            completed[run.condition].append(run)
    if quiet or all(len(members) < 2 for members in completed.values()):
        return
    from loopscope.results.student_t import SEEDS_NEEDED

    table = _table("last loop, mean over seeds")
    table.caption = f"below a mean: its 95 % interval over seeds, from {SEEDS_NEEDED} seeds on"
    table.caption_justify = "left"
    table.add_column("condition")
    for heading in ("seeds", *(heading for heading, _ in QUANTITIES)):
        table.add_column(heading, justify="right")
    for condition, members in completed.items():
        of = sum(run.condition == condition for run in runs)
        seeds = str(of) if len(members) == of else f"{len(members)} of {of}"
        table.add_row(condition, seeds, *(_mean(field, members) for _, field in QUANTITIES))
    output().print(table, markup=False)


def _mean(field: str, runs: Sequence["RunResult"]) -> str:
    """A mean over runs' last loops, its interval in a second line; nothing where there is no number."""
    from loopscope.results.student_t import over_seeds_of

    values = [getattr(run.per_loop[-1], field) for run in runs]
    if not values or any(map(math.isnan, values)):
        return ""
    found = over_seeds_of(field, values)
    digits = ".3f" if field == "bits_per_byte" else ".4g"
    if found.low is None or found.high is None:
        return f"{found.mean:{digits}}"
    return f"{found.mean:{digits}}\n{found.low:{digits}} to {found.high:{digits}}"


def _table(title: str) -> "Table":
    from rich.table import Table

    return Table(title=title, title_justify="left")


def print_next(runs: Sequence["RunResult"], folder: Path, quiet: bool) -> None:
    """The commands that look at what was trained, where any of it completed."""
    if quiet or not any(run.status == "completed" for run in runs):
        return
    name = shlex.quote(str(folder))
    print(
        f"next: loopscope audit {name}  (which loops carry a scale that no loss sees), loopscope report {name}"
    )
