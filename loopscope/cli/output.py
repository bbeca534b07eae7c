"""Where a command prints: as wide as a terminal is; in a file or a pipe as wide as its lines, none of them wrapped."""

import os
import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing import IO

    from rich.console import Console

_FILE_COLUMNS = 1000
"""Columns of a file: more than any line of a table has."""


def output() -> "Console":
    """Return a console on standard output. A file is wrapped only where COLUMNS asks for it."""
    from rich.console import Console

    console = Console()
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(file=cast("IO[str]", _NoBlanksAtEnds()), width=_FILE_COLUMNS, soft_wrap=True)


class _NoBlanksAtEnds:
    """Standard output, whatever it is at the time, without the blanks that pad a table's cells."""

    def write(self, text: str) -> int:
        sys.stdout.write("\n".join(line.rstrip(" ") for line in text.split("\n")))
        return len(text)

    def flush(self) -> None:
        sys.stdout.flush()
