"""The models of a page, each with a name of its own and the look of its condition."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.looks import Looks, condition_of
from loopscope.report.plots.figure import DASHES, Mark
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


def model_views(audits: Sequence[AuditedModel], looks: Looks | None = None) -> list[ModelView]:
    """Give audited models names that differ, and the colours of their conditions.

    They come in the page's order of conditions, the first of each before any second: figures show the first few.
    Several models of one condition (its seeds) have its colour and differ in their dashes.

    Args:
        looks: those of a page that has more than these models; a condition's only model is then shown by the
            condition's name.
    """
    names = unique_names(with_first_seeds([audited.name or "model" for audited in audits]))
    conditions = [
        condition_of(audited.name or "model") if looks else condition_of(name)
        for name, audited in zip(names, audits, strict=True)
    ]
    counts = Counter(conditions)
    of = (looks or Looks([(condition, None) for condition in counts])).of
    ranked: list[tuple[int, int, ModelView]] = []
    met: Counter[str] = Counter()
    for name, condition, audited in zip(names, conditions, audits, strict=True):
        look, rank = of(condition), met[condition]
        met[condition] += 1
        shown = look.name if looks and counts[condition] == 1 else look.name + name.removeprefix(condition)
        dash = DASHES[(DASHES.index(look.dash) + rank) % len(DASHES)]
        ranked.append((rank, look.place, ModelView(shown, look.color, dash, audited)))
    return [view for *_, view in sorted(ranked, key=lambda entry: entry[:2])]


def with_first_seeds(names: Sequence[str]) -> list[str]:
    """Return names in which no model is called by its condition alone beside another seed of it.

    A run of seed 0 goes by its condition (`dense/raw`): beside `dense/raw, seed 1` it is `dense/raw, seed 0`.
    """
    seeded = {condition_of(name) for name in names if condition_of(name) != name}
    return [f"{name}, seed 0" if name in seeded else name for name in names]


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
