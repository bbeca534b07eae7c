"""Lines with a label on the left, wrapped to 80 columns: what `doctor` and `--dry-run` print."""

import textwrap
from collections.abc import Iterable

LABEL = 12
"""Columns of a label."""


def print_labelled(lines: Iterable[tuple[str, str]]) -> None:
    """Print labels with what is said of each; what does not fit goes on below."""
    for label, said in lines:
        first, *rest = textwrap.wrap(said, 79 - LABEL, break_on_hyphens=False) or [""]
        print(f"{label:{LABEL}}{first}")
        for line in rest:
            print(f"{'':{LABEL}}{line}")
