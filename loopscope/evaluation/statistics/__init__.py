"""Intervals and tests over seeds and windows of text.

The files:

    paired      a mean difference with its interval and its p-value, in closed form
    bootstrap   over windows where there is one seed; over both as the slow reference to `paired`
    correction  Holm's, the correction for a family of tests
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.evaluation.statistics.bootstrap import over_both, over_windows
    from loopscope.evaluation.statistics.correction import holm
    from loopscope.evaluation.statistics.paired import PairedMean, Spread, paired_mean, spread

_HOMES = {
    "PairedMean": "paired",
    "Spread": "paired",
    "paired_mean": "paired",
    "spread": "paired",
    "over_both": "bootstrap",
    "over_windows": "bootstrap",
    "holm": "correction",
}
__all__ = [
    "PairedMean",
    "Spread",
    "holm",
    "over_both",
    "over_windows",
    "paired_mean",
    "spread",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
