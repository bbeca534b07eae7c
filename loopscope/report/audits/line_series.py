"""Several quantities of one model as lines in one panel, or of several models as one panel per quantity."""

from collections.abc import Callable, Sequence

from loopscope.report.audits.models import ModelView
from loopscope.report.plots.figure import OTHER_COLORS, Series, points
from loopscope.results import AuditReport

Quantity = tuple[str, Callable[[AuditReport], Sequence[float]]]


def lines(
    models: Sequence[ModelView], quantities: Sequence[Quantity], first: int = 1, log_y: bool = False
) -> tuple[tuple[Series, ...], tuple[str, ...]]:
    """Return series and panels of a figure by loop; `first` is the loop of the first value."""
    alone, several = len(models) == 1, len(quantities) > 1
    series = []
    for index, (name, values_of) in enumerate(quantities):
        for model in models:
            values = values_of(model.report)
            x, y = points(range(first, first + len(values)), values, log_y=log_y)
            if not x:
                continue
            if alone:
                # A condition's colour is the whole model's, not one quantity's among several.
                color = OTHER_COLORS[index % len(OTHER_COLORS)] if several else model.color
                series.append(Series(name, x, y, color, label_end=name if several else ""))
            else:
                series.append(
                    Series(model.name, x, y, model.color, model.dash, panel=index if several else 0)
                )
    panels = not alone and several
    return tuple(series), tuple(name for name, _ in quantities) if panels else ("",)
