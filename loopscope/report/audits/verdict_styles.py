"""Verdicts in words and shapes, and loops and shares as an audit writes them."""

from dataclasses import dataclass

from loopscope.report.plots.figure import Symbol
from loopscope.results import Verdict

GROWN_IN_WORDS = "thirty"
"""How much larger the grown state is that `exposure_grown` speaks of."""


@dataclass(frozen=True)
class VerdictStyle:
    """How one verdict is shown: never by colour alone."""

    gloss: str  # what it means, in a few words
    symbol: Symbol  # on the map


STATUS_STYLES: dict[Verdict, VerdictStyle] = {
    "blind": VerdictStyle("its scale is carried on, and no loss term sees it", "diamond"),
    "damped": VerdictStyle(
        "no loss term sees its scale, but every step between loops shrinks it", "triangle-down"
    ),
    "visible": VerdictStyle("a loss term sees its scale", "circle"),
    "removed": VerdictStyle("its scale is taken out between loops", "square"),
}


def share(value: float) -> str:
    """Write a share in percent; one that is not a number is said to be so."""
    if value != value:
        return "not finite"
    percent = f"{value:.0%}" if abs(value) >= 0.1 or abs(value) < 1e-3 else f"{value:.1%}"
    return percent.replace("-", "−") if percent != "-0%" else "0%"


def loop_names(loops: list[int]) -> str:
    """Name loops in words: `loop 2`, `loops 1-4`, `loops 1, 3`."""
    if len(loops) == 1:
        return f"loop {loops[0]}"
    if loops == list(range(loops[0], loops[-1] + 1)):
        return f"loops {loops[0]}-{loops[-1]}"
    return "loops " + ", ".join(map(str, loops))
