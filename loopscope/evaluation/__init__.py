"""What trained models are worth: at every depth, with early exits, and beside each other.

The rooms, from one model to many:

    texts         batches as they come: checked, padding cut off
    depth/        loss, perplexity and scale at every loop, and how far the depth reaches
    exits/        early exits: rules, what they trade, calibrated thresholds, realised speed
    lens/         every state by loop and layer, patches, and what each exit says of a text
    statistics/   intervals and tests over seeds and windows of text
    tasks/        benchmarks of lm-evaluation-harness at several depths, from one unroll
    compare/      conditions side by side, at matched depth and matched FLOPs, from evaluation records
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.evaluation.compare.condition import Condition, group_evaluations
    from loopscope.evaluation.compare.timing import seconds_per_token
    from loopscope.evaluation.depth.curve import depth_curves
    from loopscope.evaluation.depth.prognosis import prognose
    from loopscope.evaluation.depth.verdict import depth_verdict
    from loopscope.evaluation.exits.early_exits import EarlyExit, early_exit
    from loopscope.evaluation.exits.record import ExitRecord, record_exits
    from loopscope.evaluation.exits.rules import AbstractExitRule, build_rule
    from loopscope.evaluation.exits.speed import measure_speed

_HOMES = {
    "depth_curves": "depth.curve",
    "depth_verdict": "depth.verdict",
    "prognose": "depth.prognosis",
    "AbstractExitRule": "exits.rules",
    "build_rule": "exits.rules",
    "EarlyExit": "exits.early_exits",
    "early_exit": "exits.early_exits",
    "ExitRecord": "exits.record",
    "record_exits": "exits.record",
    "measure_speed": "exits.speed",
    "Condition": "compare.condition",
    "group_evaluations": "compare.condition",
    "seconds_per_token": "compare.timing",
}
__all__ = [
    "AbstractExitRule",
    "Condition",
    "EarlyExit",
    "ExitRecord",
    "build_rule",
    "depth_curves",
    "depth_verdict",
    "early_exit",
    "group_evaluations",
    "measure_speed",
    "prognose",
    "record_exits",
    "seconds_per_token",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
