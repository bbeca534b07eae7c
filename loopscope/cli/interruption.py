"""What the command line does when it is told to stop: a scheduler's signal is heard as Ctrl-C is, and the way on named.

A training that a scheduler's signal cut off ends with status 99. Grid Engine puts a job that ends so back into its
queue by itself; others do where they are told the number: LSF (`bsub -Q 99`), HTCondor (`on_exit_remove`), SLURM
(`RequeueExit`, or `scontrol requeue` in the job's script). 143 would be what shells say of a process that was killed.
"""

import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from loopscope.results.exit_status import PREEMPTION, REQUEUE
from loopscope.results.layout import CONFIG, newest_checkpoint

_GOING_ON = ("train", "study")
"""Commands whose work is worth a scheduler's second start."""


class TerminatedError(KeyboardInterrupt):
    """A scheduler's signal, where nothing is there that would have to be finished first."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        self.signal = int(number)
        super().__init__("terminated")


@contextmanager
def hearing_schedulers() -> Iterator[None]:
    """Raise `TerminatedError` on SIGTERM and SIGUSR1 inside, where they would end the process without a word."""
    heard = []
    if threading.current_thread() is threading.main_thread():
        heard = [number for number in PREEMPTION if signal.getsignal(number) is signal.SIG_DFL]
    for number in heard:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise TerminatedError(number)


def status_of(stop: KeyboardInterrupt, command: str) -> int:
    """Exit status of an interrupted command: 99 where a scheduler cut a training off, else as shells have it.

    So 130 for Ctrl-C, and 143 for SIGTERM in a command that trains nothing.
    """
    number = int(getattr(stop, "signal", signal.SIGINT))
    return REQUEUE if command in _GOING_ON and number in PREEMPTION else 128 + number


def interrupted(stop: KeyboardInterrupt, command: str, words: Sequence[str]) -> str:
    """Return what to say of an interrupted command, with the one that goes on.

    Args:
        command: its name.
        words: all of the command line, behind `loopscope`.
    """
    said = str(stop) or "interrupted"
    again = shlex.join(["loopscope", *words])
    if getattr(stop, "watching", False):
        return f"{said}; watch them again with the same command: {again}"
    if command == "study":
        return f"{said}; go on with the same command: {again}"
    if command == "evaluate":
        return f"{said}; what is done is kept. Go on with the same command: {again}"
    if command != "train":
        return f"{said}; what was saved is intact. Call again: {again}"
    run = _out(words)
    if run is None or not (run / CONFIG).is_file():
        return f"{said} before the run began. Call again: {again}"
    if "--resume" not in words:
        again += " --resume"
    if not hasattr(stop, "step"):
        checkpoint = newest_checkpoint(run)
        said += f"; {f'the newest checkpoint is {checkpoint.name}' if checkpoint else 'no checkpoint was saved yet'}"
    return f"{said}; go on with: {again}"


def _out(words: Sequence[str]) -> Path | None:
    for place, word in enumerate(words):
        if word == "--out" and place + 1 < len(words):
            return Path(words[place + 1])
        if word.startswith("--out="):
            return Path(word.removeprefix("--out="))
    return None
