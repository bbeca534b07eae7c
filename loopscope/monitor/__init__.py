"""The scale monitor: in our training loop, in yours, in the Hugging Face Trainer.

The files, most important first:

    monitor       `ScaleMonitor`: a check of every loop's scale where one is due, and an alarm where it runs away
    batch_slice   the few sequences of a batch that a check looks at
    alarm         what is said of a scale: nothing holds it, it grows, it has settled or turned
    growth        what a scale does over a window of checks
    scale_trend   where a run's scale is going: to twice its steps
    time_budget   how much time checks may take
    whole_weights the model that is checked where training has its weights in shards
    hf_callback   `ScaleMonitorCallback`: the monitor in a Hugging Face Trainer
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.monitor.hf_callback import ScaleMonitorCallback
    from loopscope.monitor.monitor import ScaleMonitor, ScaleWarning

_HOMES = {
    "ScaleMonitor": "monitor",
    "ScaleWarning": "monitor",
    "ScaleMonitorCallback": "hf_callback",
}
__all__ = [
    "ScaleMonitor",
    "ScaleMonitorCallback",
    "ScaleWarning",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
