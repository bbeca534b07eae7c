"""What a person sees while a run trains: how far it is, loss, scale of every loop, speed.

On a terminal one line that changes, with the step and the time left first, so that a narrow one cuts nothing that
matters. Elsewhere (a log file, CI) one line a record, whole, with the time: every ten seconds at first, and more rarely
in a long run, so that a week leaves hundreds of lines and not tens of thousands.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Column

from loopscope.results import LoopMetrics

LEAST_WAIT = 10.0
"""Seconds between two lines of a log."""
SHARE = 0.005
"""Of the time a run has taken so far and is expected to take: the wait between two lines of its log."""
_REST = Column(no_wrap=True, overflow="ellipsis", ratio=1)


class ProgressDisplay:
    """A live line on a terminal; elsewhere a plain line every so often."""

    def __init__(
        self, title: str, steps: int, start: int, quiet: bool = False, transient: bool = False
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.title = title
        self.steps = steps
        self.start = start
        self.quiet = quiet
        self.began = self.last_line = time.monotonic()
        self.last_figures = title
        self.live = self.console.is_terminal and not quiet
        self.progress = Progress(
            TextColumn("{task.fields[place]}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[figures]}", markup=False, table_column=_REST),
            console=self.console,
            disable=not self.live,
            expand=True,
            transient=transient,
        )
        self.task = self.progress.add_task(
            title, total=steps, completed=start, place=self._place(start), figures=title
        )

    def __enter__(self) -> "ProgressDisplay":
        if self.live:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:  # elsewhere it would end the log with an empty line
            self.progress.stop()

    def show(self, step: int, text: str) -> None:
        """Show what is done at this moment, on a terminal alone."""
        if self.live:
            self.progress.update(self.task, completed=step, place=self._place(step), figures=text)

    def pass_over(self, seconds: float) -> None:
        """Leave one step out of what the time that is left is judged by: it had nothing to do."""
        self.start += 1
        self.began += seconds

    def advance(self, step: int) -> None:
        """Count one more step as done."""
        if self.live:
            self.progress.update(self.task, completed=step, place=self._place(step))

    def figures(self, step: int, loss: float, rms: Sequence[float], speed: Mapping[str, float]) -> None:
        """Show the figures of a logged step.

        Args:
            rms: the scale of every loop, as the monitor measures it.
            speed: `tokens_per_second` and, where it is known, `mfu`.
        """
        scales = " ".join(f"{size:.3g}" for size in rms)
        text = f"loss {loss:.3f}  {speed['tokens_per_second']:,.0f} tok/s"
        if "mfu" in speed:
            text += f"  MFU {speed['mfu']:.0%}"
        if self.live:  # first and last loop, so that 80 columns cut none
            ends = " … ".join(f"{size:.3g}" for size in (rms[:1] if len(rms) == 1 else (rms[0], rms[-1])))
            self.last_figures = f"{text}  RMS {ends}  {self.title}"
            self.show(step, self.last_figures)
            return
        text += f"  RMS by loop {scales}"
        now = time.monotonic()
        if step == self.steps or now - self.last_line >= self._wait(step, now):
            self.last_line = now
            self.say(f"{self.title}  {self._place(step)}  {text}")

    def last_evaluation(self, step: int, text: str) -> None:
        """Say that training is over and the model is evaluated, which can take as long as many steps.

        Args:
            text: what on, in words.
        """
        self.show(step, f"trained; last evaluation, on {text}  {self.title}")
        if not self.live:
            self.say(f"{self.title}  step {step}, trained; last evaluation, on {text}")

    def evaluation(self, step: int, per_loop: Sequence[LoopMetrics]) -> None:
        """Show what every exit is worth on the validation set."""
        if any(
            math.isnan(entry.bits_per_byte) for entry in per_loop
        ):  # symbols of a task, which have no bytes
            unit, exits = "perplexity", "  ".join(f"{entry.perplexity:,.4g}" for entry in per_loop)
        else:
            unit = "bits per byte (perplexity)"
            exits = "  ".join(f"{entry.bits_per_byte:.3f} ({entry.perplexity:,.4g})" for entry in per_loop)
        self.say(f"{self.title}  step {step}, validation {unit} by loop: {exits}")
        self.show(step, self.last_figures)  # what stays on the screen in the end

    def say(self, text: str) -> None:
        """Print a line that stays: as it is on a terminal, elsewhere whole and with the time."""
        if self.quiet:
            return
        if self.live:
            self.console.print(text, markup=False, highlight=False)
            return
        print(
            f"{datetime.now():%Y-%m-%d %H:%M:%S}  {' '.join(text.splitlines())}", file=sys.stderr, flush=True
        )

    def _place(self, step: int) -> str:
        """How far it is: `120/300  0:01:23 left`."""
        left = self._left(step, time.monotonic())
        return f"{step:,}/{self.steps:,}  {'-:--:--' if left is None else hours(left)} left"

    def _left(self, step: int, now: float) -> float | None:
        """Seconds that the rest will take at the mean speed so far; None before the first step."""
        done = step - self.start
        return None if done < 1 else (now - self.began) / done * (self.steps - step)

    def _wait(self, step: int, now: float) -> float:
        return max(LEAST_WAIT, SHARE * (now - self.began + (self._left(step, now) or 0.0)))


def hours(seconds: float) -> str:
    """Return a time as h:mm:ss.

    Example:
        >>> hours(3725.4)
        '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
