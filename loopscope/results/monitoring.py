"""Records of the scale monitor: what one check during training saw. One line each in `metrics.jsonl`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from loopscope.results.audits import Verdict

PREFIX = "loopscope/"
ScaleEvent = Literal["unheld", "grows", "settled", "turned", "switched"]
"""What there was to say at a check: nothing holds the scale; it grows (an alarm); it has settled; it has turned; the
loss is another one from here on."""


@dataclass(frozen=True)
class ScaleCheck:
    """One check of the monitor, on a slice of one batch.

    Scale is measured at every check. Carry, exposure and the verdict that follows from them cost more and are
    measured where the monitor's budget allows: empty and None elsewhere.
    """

    step: int
    rms: tuple[float, ...]  # per loop, mean over the slice's tokens of s_k
    growth: float  # fitted growth of the last loop's scale over the window: 1 is twice as large; 0 too early to tell
    seconds: float  # what the check cost
    verdict: Verdict | None = None
    carry: tuple[float, ...] = ()  # per loop, d log s_{k+1} / d log s_k
    exposure: tuple[float, ...] = ()  # per loop, nats for a scale e times as large
    warning: str | None = None  # the alarm that was raised at this check
    rate: float | None = None  # of the last loop's scale per step, over the window; None too early to tell
    event: ScaleEvent | None = None
    note: str | None = None  # what was said at this check, where it was no alarm

    def figures(self) -> dict[str, float]:
        """Return flat numbers by name, for trackers that plot curves (`loopscope/rms_loop_4`, …)."""
        named: dict[str, float] = {"growth": self.growth, "check_seconds": self.seconds}
        for name, values in (("rms", self.rms), ("carry", self.carry), ("exposure", self.exposure)):
            named |= {f"{name}_loop_{loop}": value for loop, value in enumerate(values, start=1)}
        if self.verdict is not None:
            named["blind"] = float(self.verdict == "blind")
        if self.rate is not None:
            named["rate"] = self.rate
        if self.event is not None:
            named[self.event] = 1.0
        if self.warning is not None:
            named["warned"] = 1.0
        return {PREFIX + name: value for name, value in named.items()}


def check_from_figures(step: int, figures: Mapping[str, float]) -> ScaleCheck | None:
    """Return the check that a tracker kept as `figures`: its scales and what was said; None where it kept none."""
    rms: list[float] = []
    while (name := f"{PREFIX}rms_loop_{len(rms) + 1}") in figures:
        rms.append(figures[name])
    if not rms:
        return None
    warned = f"{PREFIX}warned" in figures
    event = next((event for event in get_args(ScaleEvent) if f"{PREFIX}{event}" in figures), None)
    return ScaleCheck(
        step=step,
        rms=tuple(rms),
        growth=figures.get(f"{PREFIX}growth", 0.0),
        seconds=figures.get(f"{PREFIX}check_seconds", 0.0),
        warning="warned before this run was resumed" if warned else None,
        rate=figures.get(f"{PREFIX}rate"),
        event=event or ("grows" if warned else None),
    )
