"""Conditions side by side, at matched depth and matched FLOPs, from their evaluation records alone.

In the order in which a comparison is made:

    condition     evaluations of one condition, over its seeds
    differences   every two conditions at every loop, paired by seed and by window
    matched       looped models beside models that do not loop
    timing        seconds per token at every depth, measured alternately
    pareto        every condition at every depth, and which of them nothing beats
    equal_flops   who is ahead within an amount of arithmetic
    sentences     what a comparison says, in plain sentences
    comparison    `compare`: all of it as one record
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.evaluation.compare.comparison import compare
    from loopscope.evaluation.compare.condition import Condition, group_evaluations
    from loopscope.evaluation.compare.matched import baseline_role
    from loopscope.evaluation.compare.pareto import front, options
    from loopscope.evaluation.compare.timing import seconds_per_token

_HOMES = {
    "Condition": "condition",
    "group_evaluations": "condition",
    "compare": "comparison",
    "seconds_per_token": "timing",
    "front": "pareto",
    "options": "pareto",
    "baseline_role": "matched",
}
__all__ = [
    "Condition",
    "baseline_role",
    "compare",
    "front",
    "group_evaluations",
    "options",
    "seconds_per_token",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
