"""One look per condition of a page: its name, colour, dash and place, the same in every section, figure and PNG.

Every part of a page asks `Looks`; none counts colours by its own order.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.plots.figure import line_style


@dataclass(frozen=True)
class ConditionStyle:
    """How a condition is shown everywhere on a page."""

    name: str
    color: str
    dash: str
    place: int  # 0 is the page's first condition


class Looks:
    """The conditions of a page, in its order, each with its look.

    Args:
        conditions: name and size of each, the study's own first; a size of None stands for whichever is known.
    """

    def __init__(self, conditions: Sequence[tuple[str, str | None]]) -> None:
        kept: list[tuple[str, str | None]] = []
        for name, size in conditions:
            if (name, size) not in kept and (size or name not in {known for known, _ in kept}):
                kept.append((name, size))
        names = [name for name, _ in kept]
        self._looks = {
            (name, size): ConditionStyle(
                f"{name} ({size})" if size and names.count(name) > 1 else name, *line_style(place), place
            )
            for place, (name, size) in enumerate(kept)
        }

    def of(self, condition: str, size: str | None = None) -> ConditionStyle:
        """Return the look of a condition, by its name (with its size where several have it) or as the page shows it.

        Raises:
            KeyError: it is none of the page's.
        """
        if (condition, size) in self._looks:
            return self._looks[condition, size]
        for (name, _), look in self._looks.items():
            if condition in (name, look.name):
                return look
        raise KeyError(condition)


def condition_of(model: str) -> str:
    """Return the condition in an audited model's name: `dense/raw` of `dense/raw, seed 2`."""
    return re.sub(r", seed[ -]\d+$", "", model)
