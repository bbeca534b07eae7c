"""Records that people read: `print(record)` is a few lines and a table, a notebook shows the same, and `record.table()`
is rows for whatever makes tables of them (`pandas.DataFrame(record.table())`)."""

import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 96
"""Characters of a printed line of text. Tables are as wide as they are."""


class Readable(ABC):
    """A record with a few lines that say what it comes to, and one table of figures."""

    @abstractmethod
    def lines(self) -> list[str]:
        """Return what it comes to, most important first."""

    @abstractmethod
    def table(self) -> list[dict[str, Any]]:
        """Return its figures as rows, by column."""

    def __str__(self) -> str:
        said = [textwrap.fill(line, WIDTH) for line in self.lines()]
        return "\n".join([*said, *_plain(self.table())])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        said = "".join(f"<p>{escape(line)}</p>" for line in self.lines())
        rows = self.table()
        if not rows:
            return said
        head = "".join(f"<th>{escape(name)}</th>" for name in _columns(rows))
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in _columns(rows)) + "</tr>"
            for row in rows
        )
        return f"{said}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as lines, numbers to the right."""
    if not rows:
        return []
    names = _columns(rows)
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    left = [any(isinstance(row.get(name), str) for row in rows) for name in names]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    return [
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    ]


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def written_out(text: str) -> str:
    """Return a token's text with what is not seen written out: spaces, ends of lines, control signs by code."""
    signs = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(
        signs.get(sign) or (sign if sign.isprintable() else f"\\u{{{ord(sign):x}}}") for sign in text
    )
