"""Records of the scale monitor: what one check during training saw. One line each in `metrics.jsonl`."""

from collections.abc import Mapping
from dataclasses import dataclass

from loopscope.results.audits import Verdict

PREFIX = "loopscope/"


@dataclass(frozen=True)
class ScaleCheck:
    """One check of the monitor, on a slice of one batch.

    Scale is measured at every check. Carry, exposure and the verdict that follows from them cost more and are
    measured where the monitor's budget allows: empty and None elsewhere.
    """

    step: int
    rms: tuple[float, ...]  # per loop, mean over the slice's tokens of s_k
    growth: float  # fitted growth of the last loop's scale since the first check: 1 is twice as large
    seconds: float  # what the check cost
    verdict: Verdict | None = None
    carry: tuple[float, ...] = ()  # per loop, d log s_{k+1} / d log s_k
    exposure: tuple[float, ...] = ()  # per loop, nats for a scale e times as large
    warning: str | None = None  # what was said at this check

    def figures(self) -> dict[str, float]:
        """Return flat numbers by name, for trackers that plot curves (`loopscope/rms_loop_4`, …)."""
        named: dict[str, float] = {"growth": self.growth, "check_seconds": self.seconds}
        for name, values in (("rms", self.rms), ("carry", self.carry), ("exposure", self.exposure)):
            named |= {f"{name}_loop_{loop}": value for loop, value in enumerate(values, start=1)}
        if self.verdict is not None:
            named["blind"] = float(self.verdict == "blind")
        if self.warning is not None:
            named["warned"] = 1.0
        return {PREFIX + name: value for name, value in named.items()}


def check_from_figures(step: int, figures: Mapping[str, float]) -> ScaleCheck | None:
    """Return the check that a tracker kept as `figures`: its scales and its warning; None where it kept none."""
    rms: list[float] = []
    while (name := f"{PREFIX}rms_loop_{len(rms) + 1}") in figures:
        rms.append(figures[name])
    if not rms:
        return None
    warned = f"{PREFIX}warned" in figures
    return ScaleCheck(
        step=step,
        rms=tuple(rms),
        growth=figures.get(f"{PREFIX}growth", 0.0),
        seconds=figures.get(f"{PREFIX}check_seconds", 0.0),
        warning="warned before this run was resumed" if warned else None,
    )
