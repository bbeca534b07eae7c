"""Train, audit, compare and run looped language models.

Public names are loaded on first use, so that `import loopscope` (and `loopscope --help`) never waits for
torch. The axis words used in every shape below and across the package:

    loops   applications of the shared stack (K)
    batch   sequences
    seq     tokens of a sequence
    dim     channels of the hidden state
    vocab   entries of the vocabulary
    heads   attention heads

What has no name in a package's `__all__` is private: it may move or change without a word. Every package's docstring
is a map of its files.
"""

import warnings
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from loopscope.registration import watch_registers

if TYPE_CHECKING:
    from loopscope import audit as audit
    from loopscope.evaluation.lens.model_lens import lens as lens
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
    "lens": "loopscope.evaluation.lens.model_lens",
    "unroll": "loopscope.recurrence",
    "LoopState": "loopscope.recurrence",
    "AbstractLoopedLM": "loopscope.recurrence",
}
_RENAMED: dict[
    str, tuple[str, str]
] = {}  # old public name: (its new path, the version that drops the old name)
__all__ = ["AbstractLoopedLM", "LoopState", "adapt", "audit", "generate", "lens", "load", "unroll", "wrap"]


watch_registers()


def renamed(old: str, new: str, removed_in: str) -> Any:
    """Return what is at the path `new`, and say once in a process that the public name `old` will go.

    For the `__getattr__` of a module that had the old name (the warning points at that function's caller):

        def __getattr__(name: str) -> Any:
            if name == "fetch":
                return renamed("loopscope.interop.fetch", "loopscope.interop.load", removed_in="0.4.0")
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    Args:
        old: whole path of the old name.
        new: whole path of the new one.
        removed_in: the first version without the old name.

    Warns:
        FutureWarning: both names and the version; Python shows it also to those who call from a module.
    """
    module, _, name = new.rpartition(".")
    _warn_of_new_name(old, new, removed_in)
    return getattr(import_module(module), name)


@cache
def _warn_of_new_name(old: str, new: str, removed_in: str) -> None:
    text = f"{old} is now {new}; the old name goes in loopscope {removed_in}"
    warnings.warn(text, FutureWarning, stacklevel=4)  # this function, `renamed`, `__getattr__`, the user


def __getattr__(name: str) -> Any:
    if name == "audit":  # a package that can be called
        return import_module("loopscope.audit")
    if name in _RENAMED:
        new, removed_in = _RENAMED[name]
        return renamed(f"loopscope.{name}", new, removed_in)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'loopscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
