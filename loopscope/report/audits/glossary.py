"""Verdicts in words, shapes and colours, and the thresholds that the figures draw."""

from dataclasses import dataclass

from loopscope.report.plots.figure import Symbol
from loopscope.report.study.table import number
from loopscope.results import REMOVED, SEEN, Verdict

GROWN_IN_WORDS = "thirty"
"""How much larger the grown state is that `exposure_grown` speaks of."""


@dataclass(frozen=True)
class VerdictStyle:
    """How one verdict is shown: never by colour alone."""

    gloss: str  # what it means, in a few words
    color: str
    symbol: Symbol  # on the map


STATUS_STYLES: dict[Verdict, VerdictStyle] = {
    "blind": VerdictStyle("its scale is carried on, and no loss term sees it", "#d55e00", "diamond"),
    "damped": VerdictStyle(
        "no loss term sees its scale, but every step between loops shrinks it", "#b8860b", "triangle-down"
    ),
    "visible": VerdictStyle("a loss term sees its scale", "#009e73", "circle"),
    "removed": VerdictStyle("its scale is taken out between loops", "#0072b2", "square"),
}

AUDIT_GLOSSARY = (
    (
        "scale",
        "the root mean square of the hidden state H after a loop, per token. It is what a readout that "
        "normalises divides by, and so hides.",
    ),
    (
        "direct visibility",
        "how strongly the loss terms that read a loop's own state respond to its scale, in nats for "
        "a scale e times as large (an e-fold).",
    ),
    (
        "carry",
        "how much of a relative change of scale arrives one loop later. 100%: carried whole; 0: removed.",
    ),
    (
        "exposure",
        "the strongest direct visibility that a loop's scale meets, there or at a loop to which it is carried.",
    ),
    ("blind", "carried on, and met by no loss term: nothing in training holds this scale."),
    ("damped", "met by no loss term either, but shrunk by every step between loops."),
    ("removed", f"carried on by less than {REMOVED:.0%}."),
    ("visible", f"met by a loss term: an exposure of at least {number(SEEN)} nats, now or once grown."),
    ("drift", "scale at the deepest loop over scale at the first."),
    (
        "total",
        "what the whole loss does when a loop's scale changes, through the rest of the unroll too. Turning the "
        "state a little makes it differ from zero even in a blind model, which is why the verdict rests on exposure.",
    ),
)


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
