"""Several models evaluated one after the other: how far it is, and what was measured before is not again.

Each evaluation is kept as it comes, so a series that was stopped goes on where it is called again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from loopscope.results import ModelEvaluation
from loopscope.training.progress import ProgressDisplay, hours

IfKnown = Callable[[], None] | None
"""As `measure_depth` and `measure_exits` take it."""


class _Known:
    """Remembers that it was called."""

    told = False

    def __call__(self) -> None:
        self.told = True


def evaluate_series(
    paths: Sequence[str | Path],
    measure: Callable[[Path, IfKnown], ModelEvaluation],
    title: str,
    again: bool = False,
) -> Iterator[tuple[Path, ModelEvaluation | ValueError]]:
    """Evaluate models in order, each with what came out or what was wrong with it: the others are not lost for that.

    On a terminal a line shows which model is measured and what time is left; elsewhere every model is a line with the
    time, when it is done.

    Args:
        measure: a path to its evaluation.
        title: what is measured, in a word or two.
        again: measure anew what was measured before.
    """
    display = ProgressDisplay(title, len(paths), 0, transient=True)
    for number, path in enumerate(map(Path, paths), start=1):
        known = _Known()
        outcome: ModelEvaluation | ValueError
        began = time.monotonic()
        display.show(number - 1, f"{title}  {'/'.join(path.parts[-2:])}")
        with display:
            try:
                outcome = measure(path, None if again else known)
            except ValueError as error:
                outcome = error
        took = time.monotonic() - began
        if known.told:
            display.pass_over(took)
        if known.told or not display.live:  # on a terminal the tables that follow say that it is done
            how = "failed" if isinstance(outcome, ValueError) else f"done in {hours(took)}"
            how = "was measured before; --again measures it anew" if known.told else how
            display.say(f"{title} {number}/{len(paths)}  {path}: {how}")
        yield path, outcome
