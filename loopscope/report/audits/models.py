"""The models of a page, each with a name of its own and a look of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.plots.figure import DASHES, PALETTE, Mark
from loopscope.results import AuditedModel, AuditReport

MOST_MODELS = 8
"""Models in one figure: more lines could not be told apart."""


@dataclass(frozen=True)
class ModelView:
    """One audited model, with its name, colour and dash in every figure of a page."""

    name: str
    color: str
    dash: str
    audited: AuditedModel

    @property
    def report(self) -> AuditReport:
        """The model's audit under its own objective, or the worst of those assumed."""
        return self.audited.report

    @property
    def trained(self) -> int:
        """Loops the model was trained with."""
        return len(self.report.loops)


def model_views(audits: Sequence[AuditedModel]) -> list[ModelView]:
    """Give audited models names that differ, and colours and dashes by their order."""
    names = unique_names([audited.name or "model" for audited in audits])
    first = 1 if len(audits) == 1 else 0  # the first colour says "blind" elsewhere on the page
    return [
        ModelView(name, PALETTE[(first + index) % len(PALETTE)], DASHES[index % len(DASHES)], audited)
        for index, (name, audited) in enumerate(zip(names, audits, strict=True))
    ]


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names with those that repeat told apart: the second of a kind gets a number."""
    taken: set[str] = set()
    unique = []
    for name in names:
        numbered, count = name, 1
        while numbered in taken:
            count += 1
            numbered = f"{name} ({count})"
        taken.add(numbered)
        unique.append(numbered)
    return unique


def model_depth_marks(models: Sequence[ModelView]) -> tuple[Mark, ...]:
    """Return a line at every depth that a model was trained to, where the figure goes beyond it."""
    depths = sorted({model.trained for model in models if len(model.report.expansion.rms) > model.trained})
    return tuple(
        Mark("x", float(depth), f"trained to loop {depth}" if len(depths) == 1 else "") for depth in depths
    )
