"""What early exits trade, and the rules that decide them.

In the order in which exits are judged:

    rules/        exit rules: when a sequence or a token has looped enough
    watch         one unroll, watched by one rule
    early_exits   exits that save time: sequences that are done leave the batch
    record        what every exit is worth and every rule sees, recorded once for any threshold
    curves        quality against loops, over thresholds
    calibration   a threshold chosen on one part of the windows, tested on the other
    speed         realised speed-up, beside the ideal one and what counted FLOPs allow
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.evaluation.exits.calibration import calibrate_loops, calibrate_perplexity
    from loopscope.evaluation.exits.curves import Sweep, exit_curve, exits_at, fixed_points, thresholds
    from loopscope.evaluation.exits.early_exits import EarlyExit, early_exit
    from loopscope.evaluation.exits.record import ExitRecord, record_exits
    from loopscope.evaluation.exits.rules import (
        RULES,
        AbstractBound,
        AbstractExitRule,
        AbstractRule,
        build_rule,
    )
    from loopscope.evaluation.exits.speed import measure_speed
    from loopscope.evaluation.exits.watch import Watch

_HOMES = {
    "AbstractBound": "rules",
    "AbstractExitRule": "rules",
    "AbstractRule": "rules",
    "RULES": "rules",
    "build_rule": "rules",
    "Watch": "watch",
    "EarlyExit": "early_exits",
    "early_exit": "early_exits",
    "ExitRecord": "record",
    "record_exits": "record",
    "Sweep": "curves",
    "exit_curve": "curves",
    "exits_at": "curves",
    "fixed_points": "curves",
    "thresholds": "curves",
    "calibrate_loops": "calibration",
    "calibrate_perplexity": "calibration",
    "measure_speed": "speed",
}
__all__ = [
    "RULES",
    "AbstractBound",
    "AbstractExitRule",
    "AbstractRule",
    "EarlyExit",
    "ExitRecord",
    "Sweep",
    "Watch",
    "build_rule",
    "calibrate_loops",
    "calibrate_perplexity",
    "early_exit",
    "exit_curve",
    "exits_at",
    "fixed_points",
    "measure_speed",
    "record_exits",
    "thresholds",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
