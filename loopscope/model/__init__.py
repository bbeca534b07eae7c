"""The plain looped transformer, and what its parts may be replaced by.

looped         the five parts of the waist, filled from a config
layer, attention, rotary, feed_forward, linear   one layer
readouts       H_k to the head's input
carries        H_k to the next loop's input
injections     how the input enters every loop
initial_state  H_0
config         the settings, and what every variant declares of itself; importable without torch

Names load when they are asked for, so that configs are read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.model.carries import AbstractCarry
    from loopscope.model.config import ModelConfig
    from loopscope.model.config.declarations import (
        CarryDeclaration,
        InjectionDeclaration,
        ReadoutDeclaration,
        StartDeclaration,
    )
    from loopscope.model.initial_state import AbstractStart
    from loopscope.model.injections import AbstractInjection
    from loopscope.model.looped import LoopedTransformer
    from loopscope.model.readouts import AbstractReadout

__all__ = [
    "AbstractCarry",
    "AbstractInjection",
    "AbstractReadout",
    "AbstractStart",
    "CarryDeclaration",
    "InjectionDeclaration",
    "LoopedTransformer",
    "ModelConfig",
    "ReadoutDeclaration",
    "StartDeclaration",
]

_MODULES = {
    "AbstractCarry": "carries",
    "AbstractInjection": "injections",
    "AbstractReadout": "readouts",
    "AbstractStart": "initial_state",
    "CarryDeclaration": "config.declarations",
    "InjectionDeclaration": "config.declarations",
    "LoopedTransformer": "looped",
    "ModelConfig": "config",
    "ReadoutDeclaration": "config.declarations",
    "StartDeclaration": "config.declarations",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
