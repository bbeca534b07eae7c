"""A page of a logit lens: token × loop, what each exit would say, how sure it is, and from where on it stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loopscope.report.contents import Entry
from loopscope.report.glossary import LENS
from loopscope.report.html import origins, page_path, render
from loopscope.report.study.table import HeadlineTable, TableCell, figures
from loopscope.results.logit_lens import LogitLens, TokenView
from loopscope.results.readable import written_out

_LONGEST = 14
"""Signs of a token that a cell shows."""


@dataclass(frozen=True)
class ExitCell:
    """What one exit says after one token."""

    text: str
    probability: str
    tint: str  # the probability, for its shade
    settled: bool  # it stays so to the last loop
    right: bool  # it is the text's own next token
    others: str  # the next likeliest, for whoever points at it


@dataclass(frozen=True)
class LensRow:
    """One token, and what every exit says after it."""

    place: int
    text: str
    cells: tuple[ExitCell, ...]
    settles: int


def write_lens_page(seen: LogitLens, out: str | Path) -> Path:
    """Write one self-contained HTML page of a logit lens.

    Args:
        seen: the record, such as `loopscope lens --json` prints.
        out: the page's path.

    Raises:
        ValueError: `out` is a folder.
    """
    page = page_path(out, "lens.html")
    rendered = render(
        "lens_page.html.j2",
        (),
        parts=[LENS],
        title=f"lens of {seen.name}",
        sentences=[*seen.lines(), f"Settled: {settled_spread(seen.settled)}."],
        contents=(
            Entry("said", "What each exit would say"),
            Entry("loops", "Loop by loop"),
            Entry("words", "Words"),
            Entry("origin", "What was looked at"),
        ),
        seen=seen,
        rows=token_rows(seen),
        table=loop_table(seen),
        gated=any(token.gate is not None for token in seen.loops[0].tokens),
        origins=origins([seen.provenance]),
    )
    rendered.write(page)
    return page


def token_rows(seen: LogitLens) -> list[LensRow]:
    """Return the rows of the table token × loop."""
    following = [*seen.token_ids[1:], None]
    rows = []
    for place, (text, settled, after) in enumerate(
        zip(seen.token_texts, seen.settled, following, strict=True), start=1
    ):
        cells = tuple(_cell(loop.tokens[place - 1], loop.loop >= settled, after) for loop in seen.loops)
        rows.append(LensRow(place, _short(text), cells, settled))
    return rows


def _cell(token: TokenView, settled: bool, after: int | None) -> ExitCell:
    first, *others = token.guesses
    then = "; ".join(f"{_short(guess.text)} {_share(guess.probability)}" for guess in others)
    text = (
        ""
        if token.next_probability is None
        else f"the text's own next token: {_share(token.next_probability)}"
    )
    return ExitCell(
        _short(first.text),
        _share(first.probability),
        f"{first.probability:.2f}",
        settled,
        first.token == after,
        "; ".join(part for part in (f"then {then}" if then else "", text) if part),
    )


def loop_table(seen: LogitLens) -> HeadlineTable:
    """Return means over tokens, one row per loop."""
    rows = seen.table()
    names = ["loop"]
    shares = ["settled", "next token right", "probability", "next token"]
    others = ["entropy", "RMS", "L2 norm", "cosine", "gate"]
    names += [name for name in (*shares, *others) if any(row[name] is not None for row in rows)]
    cells = [tuple(_mean(name, row[name], name in (*shares, "gate")) for name in names) for row in rows]
    return HeadlineTable((("", tuple(names)),), tuple(cells))


def _mean(name: str, value: float | None, share: bool) -> TableCell:
    if value is None:
        return TableCell("", "inf")
    if name == "loop":
        return TableCell(f"loop {value}", value)
    if name == "cosine":
        return TableCell(f"{value:.4f}", value)
    return TableCell(_share(value) if share else figures(value), value)


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.0995 else f"{100 * value:.1f} %"


def _short(text: str) -> str:
    shown = written_out(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def settled_spread(loops: Sequence[int]) -> str:
    """Return where the tokens settle, as counts by loop: `12 at loop 1, 5 at loop 2`."""
    found = {loop: loops.count(loop) for loop in sorted(set(loops))}
    return ", ".join(f"{count} at loop {loop}" for loop, count in found.items())
