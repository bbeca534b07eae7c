"""What a scheduler tells a job by signals: that it has to go, and whether it goes back to the queue.

submitit answers its signal (SIGUSR2, before the time is up and at a preemption) at once, in the middle of whatever is
done, and ignores SIGTERM. Here the training finishes its step and saves first, and submitit's answer comes after that.
"""

import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any

from loopscope.results.exit_status import PREEMPTION
from loopscope.training.stop_request import StopRequest

_POLL = 0.2


class JobStoppedError(KeyboardInterrupt):
    """A job that has to go, where no training is that would finish its step first."""


class JobSignals:
    """Hears a scheduler within a `with` block: a training stops after its step, all else at once.

    Attributes:
        requeues: whether submitit's signal came, so that the job goes back to the queue.
    """

    def __init__(self) -> None:
        name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        self.submitit = int(getattr(signal, f"SIG{name}"))
        self.requeues = False
        self._waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "JobSignals":
        for number in dict.fromkeys((*PREEMPTION, self.submitit)):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def wait(self, seconds: float) -> None:
        """Wait for submitit's signal, or for being killed."""
        self._waits = True
        until = time.monotonic() + seconds
        while not self.requeues and time.monotonic() < until:
            time.sleep(_POLL)

    def put_back(self) -> None:
        """Put the job back into the queue, as submitit does: this process ends.

        Raises:
            Exception: submitit's own, where it has been put back as often as it may.
        """
        answer = self._before.get(self.submitit)
        if callable(answer):
            answer(self.submitit, None)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.requeues = self.requeues or number == self.submitit
        request = StopRequest.in_force
        if self._waits:
            return
        if request is None or not request.is_heard:
            raise JobStoppedError
        if request.number is None:
            request.ask(number)
