"""Intervals that a size sets for its own length, for a run of another length."""

from collections.abc import Mapping
from typing import Any

EVALUATE_EVERY = "evaluate_every"
POINTS_OF_A_CURVE = 12
"""Of a run that is longer than its size's own: as many points as a curve needs, whatever the length."""


def stretched_intervals(training: Mapping[str, Any], steps: Any) -> dict[str, int]:
    """Return the intervals that are longer in a run of `steps` steps than its size's own.

    Args:
        training: the size's own section.
        steps: what was asked for, not yet checked.

    Checkpoints keep their interval: what a kill costs must not grow with the run.
    """
    own = training.get(EVALUATE_EVERY)
    if not isinstance(steps, int) or not isinstance(own, int):
        return {}
    fit = -(-steps // POINTS_OF_A_CURVE)
    unit = max(1, 10 ** (len(str(fit)) - 1) // 2)  # 250, not 247
    return {EVALUATE_EVERY: -(-fit // unit) * unit} if fit > own else {}
