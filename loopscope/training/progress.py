"""What a person sees while a run trains: loss, scale of every loop, speed, time left."""

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from loopscope.results import LoopMetrics


class ProgressDisplay:
    """A live line on a terminal; elsewhere (a log file, CI) a plain line every so often."""

    def __init__(self, title: str, steps: int, start: int, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.title = title
        self.steps = steps
        self.start = start
        self.began = self.last_line = time.monotonic()
        self.live = self.console.is_terminal and not quiet
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.progress.add_task(title, total=steps, completed=start, figures="")

    def __enter__(self) -> "ProgressDisplay":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def advance(self, step: int) -> None:
        """Count one more step as done."""
        self.progress.update(self.task, completed=step)

    def figures(self, step: int, loss: float, l2_norm: Sequence[float], speed: Mapping[str, float]) -> None:
        """Show the figures of a logged step."""
        scales = " ".join(f"{norm:.3g}" for norm in l2_norm)
        text = f"loss {loss:.3f}  L2 by loop {scales}  {speed['tokens_per_second']:,.0f} tok/s"
        if "mfu" in speed:
            text += f"  MFU {speed['mfu']:.0%}"
        self.progress.update(self.task, completed=step, figures=Text(text))
        now = time.monotonic()
        if not self.live and (now - self.last_line >= 10 or step == self.steps):
            self.last_line = now
            left = (now - self.began) / max(1, step - self.start) * (self.steps - step)
            self.console.print(
                f"{self.title}  {step}/{self.steps}  {text}  {left:.0f} s left", markup=False, highlight=False
            )

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

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False, highlight=False)
