"""A logit lens on a terminal: tokens down, loops across, as many as fit."""

from rich.console import Console
from rich.text import Text

from loopscope.cli.evaluate_depth_print import new_table, say, short_number
from loopscope.cli.output import output
from loopscope.results.logit_lens import LogitLens
from loopscope.results.readable import written_out

_TOKEN = 12
"""Characters of a token's text."""


def print_lens(made: LogitLens, console: Console | None = None) -> None:
    """What each exit says after each token, from where on it stays, and what the loops come to."""
    console = console or output()
    shown = _loops_that_fit(len(made.loops), console.width)
    table = new_table(["token", *(f"loop {loop}" for loop in shown), "settles"], left=len(shown) + 1)
    for place, text in enumerate(made.token_texts):
        cells: list[Text] = []
        for loop in shown:
            guess = made.loops[loop - 1].tokens[place].guesses[0]
            style = "bold" if loop >= made.settled[place] else "dim"
            cells.append(Text(f"{_cut(guess.text)} {guess.probability:.0%}", style))
        table.add_row(Text(_cut(text)), *cells, str(made.settled[place]))
    console.print(table)
    if len(shown) < len(made.loops):
        say(console, f"{len(shown)} of {len(made.loops)} loops fit; --out writes a page with all of them.")
    means = made.table()
    gated = means[0]["gate"] is not None
    names = ["loop", "settled", "next token right", "RMS", "L2 norm", "cosine"]
    of_loops = new_table([*names, "gate"] if gated else names)
    for row in means:
        right, cosine = row["next token right"], row["cosine"]
        trained = " ◂ trained" if row["loop"] == made.trained_loops else ""
        of_loops.add_row(
            f"{row['loop']}{trained}",
            f"{row['settled']:.0%}",
            "" if right is None else f"{right:.0%}",
            short_number(row["RMS"]),
            short_number(row["L2 norm"]),
            "" if cosine is None else f"{cosine:.4f}",
            *([f"{row['gate']:.0%}"] if gated else []),
        )
    console.print()
    console.print(of_loops)
    for line in made.lines():
        say(console, line)


def _cut(text: str) -> str:
    shown = written_out(text)
    return shown if len(shown) <= _TOKEN else f"{shown[: _TOKEN - 1]}…"


def _loops_that_fit(count: int, width: int) -> list[int]:
    """The last loops, the first one among them: all, or as many as a terminal has room for."""
    room = max(2, (width - _TOKEN - 10) // (_TOKEN + 7))
    if count <= room:
        return list(range(1, count + 1))
    step = (count - 1) / (room - 1)
    return sorted({round(1 + step * place) for place in range(room)})
