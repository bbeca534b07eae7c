"""`import loopscope` makes exported models known to transformers, which then loads them without their own code.

Neither package waits for the other. Where transformers' registers are loaded already, the classes go in at once; else
as soon as they are, by a finder that looks at two names of modules and leaves all others alone. A failure is a
warning: nobody's import of transformers breaks by it. Standard library only.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_REGISTERS = {
    "transformers.models.auto.configuration_auto": "register_config",
    "transformers.models.auto.modeling_auto": "register_model",
}
"""Modules of transformers with a register, and what puts ours there."""
_HOME = "loopscope.interop.huggingface.export.auto_classes"


class RegisterWatch(MetaPathFinder):
    """Finder that finds nothing itself: it has our classes registered after a register's module has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REGISTERS:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, RegisterWatch) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _register_after(spec, fullname)
                return spec
        return None


def watch_registers() -> None:
    """Register exported models with transformers, now or when it is imported. Calling it again does nothing."""
    if any(isinstance(finder, RegisterWatch) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, RegisterWatch())
    for name in _REGISTERS:
        if name in sys.modules:
            _register(name)


def _register_after(spec: ModuleSpec, name: str) -> None:
    loader: Any = spec.loader
    run: Callable[[ModuleType], None] = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        _register(name)

    loader.exec_module = exec_module


def _register(name: str) -> None:
    try:
        getattr(import_module(_HOME), _REGISTERS[name])()
    except Exception as error:
        warnings.warn(
            f"exported models of Loopscope are not registered with transformers ({type(error).__name__}: {error}); "
            "load them with trust_remote_code=True, or by loopscope.load",
            stacklevel=2,
        )
