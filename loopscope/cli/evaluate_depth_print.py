"""Depth curves and their verdicts on a terminal."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loopscope.cli.output import output
from loopscope.results import DepthVerdict, Fate, Interval, ModelEvaluation, Prognosis

BEYOND_STYLES = {
    "helps": "bold white on dark_green",
    "holds": "bold white on blue",
    "hurts": "bold white on red",
    "unclear": "bold black on yellow",
}

FATE_STYLES: dict[Fate, str] = {
    "improves": "bold white on dark_green",
    "settles": "bold white on blue",
    "drifts": "bold black on yellow",
    "breaks": "bold white on red",
    "not told": "dim",
}


def print_curves(evaluation: ModelEvaluation, console: Console | None = None) -> None:
    """One table per reading; the trained depth is marked."""
    console = console or output()
    console.print(Text(evaluation.name, "bold"))
    for curve in evaluation.depth:
        exact = any(entry.exact_match is not None for entry in curve.per_loop)
        headings = ["loop", "loss", "perplexity", "bits per byte", "top-1"]
        table = new_table([*headings, *(["exact match"] if exact else []), "L2 norm", "RMS"])
        if len(evaluation.depth) > 1:
            table.title, table.title_justify = _TITLES[curve.reading], "left"
        for entry in curve.per_loop:
            trained = entry.loop == evaluation.trained_loops
            match = [] if not exact or entry.exact_match is None else [f"{entry.exact_match:.1%}"]
            table.add_row(
                f"{entry.loop}{' ◂ trained' if trained else ''}",
                f"{entry.loss:.4f}",
                short_number(entry.perplexity),
                ""
                if math.isnan(entry.bits_per_byte)
                else f"{entry.bits_per_byte:.4f}",  # a task has no bytes
                f"{entry.accuracy:.1%}",
                *match,
                short_number(entry.l2_norm),
                short_number(entry.rms),
                style="bold" if trained else "",
            )
        console.print(table)
    text = f"{evaluation.windows:,} windows of {evaluation.sequence} tokens: {evaluation.data}."
    say(console, text)
    if note := evaluation.how_depths_were_read():
        say(console, note)
    if evaluation.prognosis is not None:
        print_prognosis(evaluation.prognosis, console)
    console.print()


_TITLES = {
    "at depth": "at depth: loop k is the last of k loops",
    "as trained": "as trained: loop k is exit k of the trained depth",
}


def print_prognosis(prognosis: Prognosis, console: Console) -> None:
    """What more loops than trained were foretold to do, and why."""
    word = (f" foretold, more loops: {prognosis.fate} ", FATE_STYLES[prognosis.fate])
    console.print(Text.assemble(word))
    say(console, prognosis.why)


def print_verdicts(verdicts: Sequence[DepthVerdict], console: Console | None = None) -> None:
    """One line of judgement and one of reason per condition."""
    console = console or output()
    for verdict in verdicts:
        word = f" more loops: {verdict.beyond} "
        console.print(Text.assemble((word, BEYOND_STYLES[verdict.beyond]), "  ", (verdict.condition, "bold")))
        say(console, verdict.why)


def with_interval(interval: Interval, digits: int = 4, sign: bool = False) -> str:
    """`1.2340 ±0.0340`, both ends where they are not alike, the mean alone where there is no interval."""
    mean = f"{interval.mean:{'+' if sign else ''}.{digits}f}"
    if interval.low is None or interval.high is None:
        return mean
    below, above = (
        f"{side:.{digits}f}" for side in (interval.mean - interval.low, interval.high - interval.mean)
    )
    return f"{mean} ±{above}" if above == below else f"{mean} (+{above}, -{below})"


def new_table(headings: Sequence[str], left: int = 1) -> Table:
    """A plain table, the first columns to the left and the rest to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < left else "right")
    return table


def short_number(value: float) -> str:
    """Four digits, or whole thousands."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def say(console: Console, text: str) -> None:
    """A line of prose: nothing in it is markup."""
    console.print(text, markup=False, highlight=False)
