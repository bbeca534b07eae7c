"""What a person sees while a corpus is ingested: a bar on a terminal, a line every so often in a log file or a pipe."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

FIRST, EVERY = 2.0, 15.0
"""Seconds until the first line outside a terminal, and between lines: what is quick says nothing."""

Piece = TypeVar("Piece", str, str | None)


class IngestionDisplay:
    """Counts the bytes of text that go by, on standard error.

    Args:
        corpus: its name, before every line.
        shown: False shows nothing.
    """

    def __init__(self, corpus: str, shown: bool) -> None:
        console = Console(stderr=True)
        self.corpus = corpus
        self.lines = shown and not console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            disable=not shown or self.lines,
            transient=True,
        )
        self.began = time.monotonic()
        self.due = self.began + FIRST

    def __enter__(self) -> "IngestionDisplay":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def counted(self, pieces: Iterable[Piece], title: str, total: int | None) -> Iterator[Piece]:
        """Yield pieces of text (None between documents), and show how far they are.

        Args:
            title: what is being made of them.
            total: bytes of all of them, about; None where nobody knows.
        """
        task = self.bar.add_task(f"{self.corpus}: {title}", total=total)
        began, done = time.monotonic(), 0
        for piece in pieces:
            yield piece
            if piece is None:
                continue
            size = len(piece.encode("utf-8", errors="replace"))
            done += size
            self.bar.advance(task, size)
            now = time.monotonic()
            if self.lines and now >= self.due:
                self.due = now + EVERY
                part = f"{done / 1e6:,.1f}" + ("" if total is None else f" of {total / 1e6:,.1f}")
                self._say(f"{title}, {part} MB, {done / 1e6 / max(now - began, 1e-9):.1f} MB/s")

    def done(self, text: str) -> None:
        """Say what came of it, where lines were shown."""
        if self.lines and time.monotonic() - self.began >= FIRST:
            self._say(f"{text}, in {time.monotonic() - self.began:.0f} s")

    def _say(self, text: str) -> None:
        print(f"{datetime.now():%H:%M:%S} {self.corpus}: {text}", file=sys.stderr, flush=True)
