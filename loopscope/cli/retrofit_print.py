"""A looped model of another model, on a terminal: its layers, how it compares, what its recipe will do."""

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loopscope.cli.audit_print import MARKS, print_judged, print_static
from loopscope.cli.output import output
from loopscope.results import RetrofitRecord
from loopscope.results.layout import TRAIN


def print_retrofit(record: RetrofitRecord, out: Path, console: Console | None = None) -> None:
    """Where it comes from, the verdict on its recipe and on itself, and the command that goes on."""
    console = console or output()
    head, comparison = record.lines()[0], record.comparison()
    console.print(head, markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    rows = record.table()
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)
    console.print(comparison, markup=False, highlight=False)
    if record.new:
        console.print(f"New, and not trained yet: {', '.join(record.new)}.", markup=False, highlight=False)
    for note in record.notes:
        console.print(note, markup=False, highlight=False)
    console.print()
    print_static(record.static, console, by_loop=False)
    if record.others:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("with")
        table.add_column("it would start")
        for option, verdict in record.others:
            style = "bold red" if verdict == "blind" else ""
            table.add_row(
                option, f"[{style}]{MARKS[verdict]} {verdict}[/]" if style else f"{MARKS[verdict]} {verdict}"
            )
        console.print(table)
    console.print()
    if record.judged is not None:
        print_judged(record.judged, console)
    path = shlex.quote(str(out / TRAIN))
    print(f"next: loopscope train --config {path} --data.files 'text/*.txt' --out RUN")
