"""The models of a page, each with a name of its own and a look of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.plots.figure import DASHES, PALETTE, Mark
from loopscope.results import AuditedModel, AuditReport

MOST = 8
"""Models in one figure: more lines could not be told apart."""


@dataclass(frozen=True)
class Shown:
    """One model with how it is drawn."""

    name: str
    color: str
    dash: str
    audited: AuditedModel

    @property
    def report(self) -> AuditReport:
        """Its audit under its own objective, or the worst of those assumed."""
        return self.audited.report

    @property
    def trained(self) -> int:
        """Loops it was trained with."""
        return len(self.report.loops)


def shown(audits: Sequence[AuditedModel]) -> list[Shown]:
    """Names that differ, and colours and dashes by place."""
    names = unique([audited.name or "model" for audited in audits])
    first = 1 if len(audits) == 1 else 0  # the first colour says "blind" elsewhere on the page
    return [
        Shown(name, PALETTE[(first + place) % len(PALETTE)], DASHES[place % len(DASHES)], audited)
        for place, (name, audited) in enumerate(zip(names, audits, strict=True))
    ]


def unique(names: Sequence[str]) -> list[str]:
    """The same names, the second of a kind with a number."""
    taken: set[str] = set()
    found = []
    for name in names:
        numbered, count = name, 1
        while numbered in taken:
            count += 1
            numbered = f"{name} ({count})"
        taken.add(numbered)
        found.append(numbered)
    return found


def depth_marks(models: Sequence[Shown]) -> tuple[Mark, ...]:
    """A line at every depth that a model was trained to, where the figure goes beyond it."""
    depths = sorted({model.trained for model in models if len(model.report.expansion.rms) > model.trained})
    return tuple(
        Mark("x", float(depth), f"trained to loop {depth}" if len(depths) == 1 else "") for depth in depths
    )
