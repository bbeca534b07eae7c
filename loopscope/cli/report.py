"""`loopscope report`."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from loopscope.cli.arguments import parse
from loopscope.results.faults import concerning
from loopscope.results.layout import is_tracked

COLLECTED_AFTER = 200_000
"""New objects between two collections of garbage, which at Python's own 700 take a tenth of a large page's time."""


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page, and every figure as PNG and SVG, from a study or run folder.

    Of a model of others the page shows what `audit` and `evaluate` have kept, in its folder or where --keep-in said.

    Example:
        loopscope report runs/x
        loopscope report runs/x --out page.html
    """

    source: tyro.conf.Positional[Path]
    """Study folder, run folder, folder with what was measured of a model, or a results file."""
    out: Path | None = None
    """The page; report.html in the folder by default."""


def report(arguments: Sequence[str]) -> None:
    """`loopscope report`."""
    command = parse(Report, "report", arguments)
    from loopscope.report.page import write_report

    often = gc.get_threshold()
    gc.set_threshold(COLLECTED_AFTER)
    try:
        with concerning(command.out or command.source):  # a full disk names no figure
            page = write_report(command.source, command.out)
    finally:
        gc.set_threshold(*often)
    print(page)
    if is_tracked(command.source):
        from loopscope.jobs import add_to_trackers

        add_to_trackers(command.source, {}, page)
