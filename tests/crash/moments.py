"""When to kill: drawn from a seed, and waited for by what a run has written, so that a slow machine meets them too."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loopscope.results.layout import METRICS

Kind = Literal["start", "step", "save"]
PATIENCE = 60.0
"""Seconds without a sign of life after which a run counts as hung."""
LOOK = 0.001
"""Seconds between two looks at a run's folder."""
TAIL = 4096
STEP = re.compile(rb'"step": (\d+)')


@dataclass(frozen=True)
class Moment:
    """A moment to kill at.

    Attributes:
        kind: so long after the start; so long after a step was logged; so long after a save began.
        steps: how many later than those that the run had before.
        seconds: from then on.
        one: whether one process of several is killed and the others find out, or all at once.
    """

    kind: Kind
    steps: int
    seconds: float
    one: bool


def draw_moment(random_numbers: random.Random) -> Moment:
    """Draw a moment: half of them inside a save, the rest while it steps or starts."""
    kind: Kind = random_numbers.choice(("save", "save", "save", "step", "step", "start"))
    longest = {"start": 0.6, "step": 0.03, "save": 0.008}[kind]
    return Moment(
        kind=kind,
        steps=random_numbers.randint(1, 7),
        seconds=random_numbers.uniform(0.0, longest),
        one=random_numbers.random() < 0.5,
    )


def wait_for(moment: Moment, run: Path, interval: int, lives: Callable[[], bool]) -> bool:
    """Wait until a moment has come; False where the run has ended before."""
    began = time.monotonic()
    before = last_step(run)
    target = before + moment.steps
    if moment.kind == "save":
        target = (before // interval + 1 + moment.steps // interval) * interval

    def reached() -> bool:
        if moment.kind == "start":
            return True
        if last_step(run) < target:
            return False
        return moment.kind == "step" or is_writing(run)

    while not reached():
        if not lives():
            return False
        if moment.kind == "save" and last_step(run) > target:  # it was over before it was seen: the next one
            target = (last_step(run) // interval + 1) * interval
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"{run} has not come to {moment} within {PATIENCE:.0f} s")
        time.sleep(LOOK)
    time.sleep(moment.seconds)
    return lives()


def is_writing(run: Path) -> bool:
    """Whether a run's checkpoint is being written, or was when it was killed."""
    return any((run / "checkpoints").glob(".writing-*"))


def last_step(run: Path) -> int:
    """The last step that a run has logged: from the end of its metrics: it is asked often."""
    path = run / METRICS
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().split(b"\n")[:-1]  # the last is empty, or was cut
    return max((int(found[1]) for line in lines if (found := STEP.search(line))), default=0)
