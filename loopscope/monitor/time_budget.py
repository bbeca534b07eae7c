"""A budget of time: what watches a training may cost at most a share of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TimeBudget:
    """Counts training time and the time spent watching, and says what can still be afforded.

    What is asked for is granted when enough training has passed to pay for it. What is spent without asking is a
    debt, which training pays back before the next grant. A part of the income may be spent from hand to mouth in
    the meantime (`earned`): the debt then shrinks by the rest, and no debt is ever made that way.

    Args:
        share: most of the time spent watching per training time, 0.02 for 2 %; None never refuses.
        clock: seconds that only go forward.
    """

    def __init__(self, share: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        if share is not None and not 0 < share <= 1:
            raise ValueError(
                f"budget is {share!r}; give a share of training time above 0 and up to 1 (0.02 is 2 %), "
                "or None to check at every turn, whatever it costs"
            )
        self.share = share
        self.clock = clock
        self.training = 0.0  # seconds, without what was spent
        self.spent = 0.0
        self._since = 0.0  # training at the last spending
        self._mark: float | None = None

    def tick(self) -> None:
        """Count what passed since the last mark as training: a step has ended."""
        now = self.clock()
        if self._mark is not None:
            self.training += now - self._mark
        self._mark = now

    def restart(self) -> None:
        """Leave out what passed since the last mark: it was no training (an evaluation, a checkpoint)."""
        self._mark = self.clock()

    def affords(self, seconds: float) -> bool:
        """Return whether the training so far pays for all that was spent and for `seconds` more."""
        return self.share is None or self.spent + seconds <= self.share * self.training

    def earned(self, seconds: float, part: float) -> bool:
        """Return whether part of what training earned since the last spending pays for `seconds`, debts aside."""
        return self.share is None or seconds <= self.share * part * (self.training - self._since)

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time of a block as spent."""
        began = self.clock()
        try:
            yield
        finally:
            self._mark = self.clock()
            self.spent += self._mark - began
            self._since = self.training
