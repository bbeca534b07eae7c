"""Train, audit, compare and run looped language models.

Public names are loaded on first use, so that `import loopscope` (and `loopscope --help`) never waits for
torch. The axis words used in every shape below and across the package:

    loops   applications of the shared stack (K)
    batch   sequences
    seq     tokens of a sequence
    dim     channels of the hidden state
    vocab   entries of the vocabulary
    heads   attention heads
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope import audit as audit
    from loopscope.interop.foreign.adapt import adapt as adapt
    from loopscope.interop.foreign.wrap import wrap as wrap
    from loopscope.interop.load import load as load
    from loopscope.jobs.generate import generate as generate
    from loopscope.recurrence import AbstractLoopedLM as AbstractLoopedLM
    from loopscope.recurrence import LoopState as LoopState
    from loopscope.recurrence import unroll as unroll

__version__ = "0.1.0"

_HOMES = {
    "load": "loopscope.interop.load",
    "adapt": "loopscope.interop.foreign.adapt",
    "wrap": "loopscope.interop.foreign.wrap",
    "generate": "loopscope.jobs.generate",
    "unroll": "loopscope.recurrence",
    "LoopState": "loopscope.recurrence",
    "AbstractLoopedLM": "loopscope.recurrence",
}
__all__ = ["AbstractLoopedLM", "LoopState", "adapt", "audit", "generate", "load", "unroll", "wrap"]


def __getattr__(name: str) -> Any:
    if name == "audit":  # a package that can be called
        return import_module("loopscope.audit")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'loopscope' has no attribute {name!r}")
