"""`loopscope report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from loopscope.cli.arguments import parse


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page, and every figure as PNG and SVG, from a study or run folder.

    Example:
        loopscope report runs/x
        loopscope report runs/x --out page.html
    """

    source: tyro.conf.Positional[Path]
    """Study folder, run folder, or a results file."""
    out: Path | None = None
    """The page; report.html in the folder by default."""


def report(arguments: Sequence[str]) -> None:
    """`loopscope report`."""
    command = parse(Report, "report", arguments)
    from loopscope.report.page import write_report

    print(write_report(command.source, command.out))
