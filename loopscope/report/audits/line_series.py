"""Several quantities of one model as lines in one panel, or of several models as one panel per quantity."""

from collections.abc import Callable, Sequence

from loopscope.report.audits.models import ModelView
from loopscope.report.plots.figure import PALETTE, Series, points
from loopscope.results import AuditReport

Quantity = tuple[str, Callable[[AuditReport], Sequence[float]]]


def lines(
    models: Sequence[ModelView], quantities: Sequence[Quantity], first: int = 1, log_y: bool = False
) -> tuple[tuple[Series, ...], tuple[str, ...]]:
    """Return series and panels of a figure by loop; `first` is the loop of the first value."""
    alone = len(models) == 1
    series = []
    for index, (name, values_of) in enumerate(quantities):
        for model in models:
            values = values_of(model.report)
            x, y = points(range(first, first + len(values)), values, log_y=log_y)
            if not x:
                continue
            if alone:
                # The first colour says "blind" elsewhere on the page.
                series.append(
                    Series(name, x, y, PALETTE[1 + index], label_end=name if len(quantities) > 1 else "")
                )
            else:
                series.append(
                    Series(
                        model.name, x, y, model.color, model.dash, panel=index if len(quantities) > 1 else 0
                    )
                )
    several = not alone and len(quantities) > 1
    return tuple(series), tuple(name for name, _ in quantities) if several else ("",)
