"""What a monitor says of the scales that it measures: that nothing holds them, that they grow, and when that is over.

That nothing holds a scale is a fact about the loss, and said once. An alarm is about the scale itself: it grew over a
window of checks, and how fast. It is taken back when the scale has settled or turned.
"""

from loopscope.monitor.growth import FEWEST, TURNED, ScaleCurve, Trend, trend
from loopscope.results import ScaleCheck, ScaleEvent, Verdict

AGAIN = 2.0
"""Times the scale of the last alarm from which a scale that had settled or turned since raises another."""
ALARMS = 2
"""Most alarms."""
CALL = "loopscope.audit(model, input_ids, labels, objective)"
ADVICE = (
    "Add a penalty on the state's size to the loss (0.01 × mean square of H, say), read the raw state at every loop "
    f"but the last, or put a norm between loops; {CALL} measures each."
)


class ScaleAlarm:
    """Knows what was said, and finds what there is to say next. Its memory is rebuilt from the checks of a run.

    Args:
        steps: of the whole training; None where nobody knows.
    """

    def __init__(self, steps: int | None = None) -> None:
        self.steps = steps
        self.alarms: list[tuple[int, float]] = []  # step and scale
        self._last: int | None = None  # step at which something was said last
        self._since: set[ScaleEvent] = set()  # what was said since the last alarm

    def hangs_on_verdict(self, sizes: ScaleCurve) -> bool:
        """Return whether an alarm would be raised if the model is blind."""
        found = trend(sizes)
        return found is not None and self._is_news(found)

    def event(self, sizes: ScaleCurve, blind: bool, judged: bool) -> ScaleEvent | None:
        """Return what there is to say of the last of these sizes, or None.

        Args:
            blind: whether the last verdict known was blind.
            judged: whether it is of this very check.
        """
        found = trend(sizes)
        if not blind:
            return None
        if found is not None and judged and self._is_news(found):
            return "grows"
        if self._last is None:
            return "unheld" if len(sizes) >= FEWEST else None
        if found is None or found.start < self._last:
            return None
        if found.settled and "settled" not in self._since:
            return "settled"
        peak = max(size for _, size in sizes)
        if found.falls and found.last <= TURNED * peak and "turned" not in self._since:
            return "turned"
        return None

    def remember(self, event: ScaleEvent, step: int, size: float) -> None:
        """Take note of what was said at a step, and of the scale there."""
        self._last = step
        if event == "grows":
            self.alarms.append((step, size))
            self._since = set()
        else:
            self._since.add(event)

    def words(self, event: ScaleEvent, sizes: ScaleCurve, reason: str) -> str:
        """Return the sentence for an event at the last of these sizes.

        Args:
            reason: why nothing holds the scale, where this check's verdict says so.
        """
        (begin, start), (step, now) = sizes[0], sizes[-1]
        found = trend(sizes)
        if event == "unheld" or found is None:
            return (
                f"step {step}: nothing holds the scale of the last loop (RMS {start:.4g} at step {begin}, "
                f"{now:.4g} now). {reason + ' ' if reason else ''}That is no alarm: whether it grows is watched."
            )
        if event == "grows":
            again = " again" if self.alarms else ""
            return (
                f"step {step}: the scale of the last loop has grown{again} and the loss does not see it: RMS "
                f"{found.first:.4g} at step {found.start}, {found.last:.4g} now, {100 * found.rate:.3g} more every 100 "
                f"steps; {self._outlook(found)}. {reason} {ADVICE}"
            )
        if event == "settled":
            return (
                f"step {step}: the scale of the last loop has settled: RMS {found.first:.4g} at step {found.start}, "
                f"{found.last:.4g} now. Still nothing in the loss holds it there."
            )
        at, peak = max(sizes, key=lambda entry: entry[1])
        return (
            f"step {step}: the scale of the last loop has turned: RMS {peak:.4g} at step {at}, {found.last:.4g} now, "
            f"{-100 * found.rate:.3g} less every 100 steps. Still nothing in the loss holds it."
        )

    def _is_news(self, found: Trend) -> bool:
        """Whether the scale grows, and no alarm was raised of that."""
        if not found.grows:
            return False
        if not self.alarms:
            return True
        over = bool(self._since & {"settled", "turned"})
        return over and found.last >= AGAIN * self.alarms[-1][1] and len(self.alarms) < ALARMS

    def _outlook(self, found: Trend) -> str:
        if self.steps is not None and self.steps > found.end:
            return f"at that rate it is {found.at(self.steps):.4g} at step {self.steps}, the last"
        return f"at that rate it has doubled by step {found.end + round(found.last / found.rate)}"


def switch_words(check: ScaleCheck, before: tuple[str, Verdict | None], now: str, reason: str) -> str:
    """Return what a switch to another objective changes, at its first check.

    Args:
        before: the objective until now, and the last verdict on it.
        now: the objective from here on.
        reason: why the verdict of this check is what it is.
    """
    name, was = before
    head = f"step {check.step}: the loss is {now} from here on, {name} until now"
    if check.verdict is None:
        return f"{head}; what it sees of the scale could not be measured at this step."
    if check.verdict == was:
        return f"{head}; the verdict stays {was}. {reason}"
    if check.verdict == "blind":
        change = f"nothing holds the scale from here on (blind{f', {was} until now' if was else ''})"
    elif was == "blind":
        change = f"the scale is {check.verdict} from here on, blind until now"
    else:
        change = f"the verdict is {check.verdict} from here on{f', {was} until now' if was else ''}"
    return f"{head}; {change}. {reason}"
