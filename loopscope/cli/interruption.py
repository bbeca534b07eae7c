"""What the command line does when it is told to stop: SIGTERM is heard as Ctrl-C is, and the way on is named."""

import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from loopscope.results.layout import CONFIG, newest_checkpoint


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, where nothing is there that would have to be finished first."""

    def __init__(self) -> None:
        self.signal = int(signal.SIGTERM)
        super().__init__("terminated")


@contextmanager
def hearing_sigterm() -> Iterator[None]:
    """Raise `TerminatedError` on SIGTERM inside, where it would end the process without a word."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise TerminatedError


def status_of(stop: KeyboardInterrupt) -> int:
    """Exit status of an interrupted command, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + int(getattr(stop, "signal", signal.SIGINT))


def interrupted(stop: KeyboardInterrupt, command: str, words: Sequence[str]) -> str:
    """Return what to say of an interrupted command, with the one that goes on.

    Args:
        command: its name.
        words: all of the command line, behind `loopscope`.
    """
    said = str(stop) or "interrupted"
    again = shlex.join(["loopscope", *words])
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
