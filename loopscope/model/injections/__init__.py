"""Injections: how the input enters every loop. A new one is a file here and a line below."""

from loopscope.model.config import ModelConfig
from loopscope.model.injections.add import AddInjection
from loopscope.model.injections.base import AbstractInjection
from loopscope.model.injections.concat import ConcatInjection
from loopscope.model.injections.gated import GatedInjection
from loopscope.model.injections.write import WriteInjection

__all__ = [
    "AbstractInjection",
    "AddInjection",
    "ConcatInjection",
    "GatedInjection",
    "WriteInjection",
    "build_injection",
]


def build_injection(config: ModelConfig) -> AbstractInjection | None:
    """The injection a config names, or None."""
    match config.injection.kind:
        case "none":
            return None
        case "add":
            return AddInjection()
        case "gated":
            return GatedInjection(config.dim)
        case "concat":
            return ConcatInjection(config.dim)
        case "write":
            return WriteInjection(config.dim)
