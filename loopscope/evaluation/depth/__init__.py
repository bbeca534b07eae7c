"""What every depth is worth on held-out text.

From tokens to a verdict:

    readings       loop k as the last of k loops, for some depths, from one unroll where that serves
    token_scores   cross-entropy and hits of every token, a chunk at a time
    curve          `depth_curves`: quality and scale at every loop, from one unroll per batch
    verdict        `depth_verdict`: how far a condition's depth reaches, over its seeds
    prognosis      `prognose`: what more loops will do, from K + 2 of them; with its signs, rule, constants and cause
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.evaluation.depth.curve import depth_curves
    from loopscope.evaluation.depth.prognosis import prognose
    from loopscope.evaluation.depth.verdict import depth_verdict

_HOMES = {
    "depth_curves": "curve",
    "depth_verdict": "verdict",
    "prognose": "prognosis",
}
__all__ = [
    "depth_curves",
    "depth_verdict",
    "prognose",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
