"""What a person sees while several runs of a study are trained elsewhere: one table of all of them.

On a terminal a table that changes in place, running ones first, no longer than the screen. Elsewhere (a log file, a
pipe) a line for every change, and now and then one that says how far all are.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from loopscope.training.progress import LEAST_WAIT, SHARE, ProgressDisplay

STATE_ORDER = ("failed", "diverged", "running", "queued", "waiting", "held")
"""States in the order in which the table has them; what is done comes last."""
AROUND = 7
"""Lines of the screen that are no rows: title, heading, frame, counts, and a line for the shell."""


@dataclass(frozen=True)
class BoardRow:
    """A run as the table has it.

    Attributes:
        name: condition and seed.
        state: one word: waiting, queued, running, finished, diverged, failed, interrupted, held.
        step: the last that is known.
        steps: of the whole run; None where that is not known yet.
        loss: as text, empty without one.
        where: who trains it: a worker, a job, a host.
    """

    name: str
    state: str
    step: int = 0
    steps: int | None = None
    loss: str = ""
    where: str = ""

    @property
    def place(self) -> str:
        """How far it is: 120/300."""
        return f"{self.step:,}/{'?' if self.steps is None else f'{self.steps:,}'}"


class StudyBoard:
    """Shows the rows of a study's table as they change."""

    def __init__(self, title: str, runs: int, quiet: bool = False) -> None:
        self.title = title
        self.quiet = quiet
        self.lines = ProgressDisplay(title, runs, 0, quiet)
        self.console: Console = self.lines.console
        self.live = (
            Live(console=self.console, auto_refresh=False, transient=True) if self.lines.live else None
        )
        self.before: dict[str, BoardRow] = {}
        self.began = self.last_line = time.monotonic()

    def __enter__(self) -> "StudyBoard":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays, above the table where there is one."""
        self.lines.say(text)

    def show(self, rows: Sequence[BoardRow]) -> None:
        """Show the runs as they are now."""
        if self.quiet:
            return
        if self.live:
            self.live.update(
                board_table(self.title, rows, max(3, self.console.height - AROUND)), refresh=True
            )
            return
        for row in rows:
            old = self.before.get(row.name)
            if (old is None and row.state not in ("waiting", "interrupted")) or (
                old is not None and old.state != row.state
            ):
                self.say(change_line(row))
        self.before = {row.name: row for row in rows}
        now = time.monotonic()
        running = [row for row in rows if row.state == "running"]
        if running and now - self.last_line >= max(LEAST_WAIT, SHARE * (now - self.began)):
            self.last_line = now
            self.say(f"{counts_of(rows)}: {'; '.join(f'{row.name} {row.place}' for row in running)}")


def change_line(row: BoardRow) -> str:
    """Return what to say of a run whose state has changed."""
    where = f" ({row.where})" if row.where else ""
    if row.state in ("running", "queued", "interrupted", "held"):
        return f"{row.name}: {row.state}{where}" + (f", from step {row.step:,}" if row.step else "")
    loss = f", loss {row.loss}" if row.loss else ""
    return f"{row.name}: {row.state}{where} at step {row.step:,}{loss}"


def counts_of(rows: Sequence[BoardRow]) -> str:
    """Return how many runs are in which state: 3 finished, 2 running, 1 waiting."""
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{number} {state}" for state, number in counts.most_common())


def board_table(title: str, rows: Sequence[BoardRow], most: int) -> RenderableType:
    """Return the table of runs, of which it shows `most` rows: those that people look at first."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for heading, justify in (
        ("run", "left"),
        ("state", "left"),
        ("step", "right"),
        ("loss", "right"),
        ("where", "left"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    order = {state: place for place, state in enumerate(STATE_ORDER)}
    shown = sorted(rows, key=lambda row: order.get(row.state, len(order)))[:most]
    for row in shown:
        table.add_row(row.name, row.state, row.place if row.step or row.steps else "", row.loss, row.where)
    left = len(rows) - len(shown)
    table.caption = counts_of(rows) + (f" ({left} not shown)" if left else "")
    return table
