"""Ctrl-C, SIGTERM and SIGUSR1 while a run trains: the step is finished and saved, and then the training stops.

The last two are how schedulers announce that a job's machine is wanted. A second signal ends the process as it would
have without. Signals reach Python's main thread only: a training in another thread is left as it is, and so is a signal
that the process was started to ignore (`nohup`, a background job).

Of several processes one or all may be asked: each step exchanges, while it computes, whether any was when it began, and
all stop after the same one. torchrun hands on a Ctrl-C that the terminal has sent to all of them already, so a second
signal counts there only when it comes seconds after the first.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, ClassVar

from loopscope.results.exit_status import PREEMPTION
from loopscope.training.distributed.ranks import ALONE, PendingMaximum, Ranks

WATCHED = (signal.SIGINT, *PREEMPTION)
HANDED_ON = 5.0
"""Seconds within which a second signal is torchrun handing on the first."""


class TrainingStoppedError(KeyboardInterrupt):
    """A training that was asked to stop, and has saved where it stood. As `KeyboardInterrupt` it ends a study too.

    Attributes:
        step: the last step that is done, and saved.
        steps: of the whole run.
        signal: which one asked.
    """

    def __init__(self, title: str, step: int, steps: int, number: int) -> None:
        self.step, self.steps, self.signal = step, steps, number
        super().__init__(
            f"{title}: stopped by {signal.Signals(number).name} after step {step} of {steps}, saved"
        )


class StopRequest:
    """Catches the signals that ask to stop, within a `with` block.

    Args:
        ranks: processes that stop together.

    Attributes:
        number: the signal that asked this process; None as long as none did.
    """

    in_force: ClassVar["StopRequest | None"] = None
    """The one of the training that is under way, for whoever hears of a stop by another signal."""

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.number: int | None = None
        self._asked = 0.0  # when
        self._pending: PendingMaximum | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        StopRequest.in_force = self
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        StopRequest.in_force = None
        self.release()

    @property
    def is_heard(self) -> bool:
        """Whether the training looks at it: steps are taken, or one is finished because of it."""
        return bool(self._before) or self.number is not None

    def ask(self, number: int) -> None:
        """Ask the training to stop, as the signal of this number would."""
        self._ask(number, None)

    def begin_step(self) -> None:
        """Begin to ask the other processes whether they have to stop: all of them get one answer in this step."""
        if not self.ranks.alone:
            self._pending = self.ranks.begin_maximum(self.number or 0)

    def agreed(self) -> int | None:
        """Return the signal on which all processes stop after this step; None: they go on."""
        if self._pending is None:
            return self.number
        found, self._pending = self._pending.get(), None
        return found or None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and not self.ranks.alone:
            if time.monotonic() - self._asked > HANDED_ON:
                self.release()
                signal.raise_signal(number)
            return
        self.number, self._asked = number, time.monotonic()
        if self.ranks.alone:
            self.release()
        if not self.ranks.first:
            return
        # Not through the progress display: a handler may run while that is drawing.
        with suppress(OSError):
            os.write(2, b"\nfinishing this step, then saving it; once more to stop at once\n")

    def release(self) -> None:
        """Leave the signals to whom they were before."""
        while self._before:
            signal.signal(*self._before.popitem())
