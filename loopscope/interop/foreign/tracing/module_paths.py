"""Dotted paths into a module: found, or refused with the nearest names that exist."""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn


def find(module: nn.Module, path: str, argument: str) -> Any:
    """What `path` names in `module`.

    Raises:
        ValueError: nothing there; names the argument and the nearest paths.
    """
    found: Any = module
    for name in path.split("."):
        if not name or not hasattr(found, name):
            raise ValueError(
                f"{argument} is {path!r}, but {type(module).__name__} has no such part; {_nearest(module, path)}"
            )
        found = getattr(found, name)
    return found


def find_module(module: nn.Module, path: str, argument: str) -> nn.Module:
    """The module at `path`."""
    found = find(module, path, argument)
    if not isinstance(found, nn.Module):
        raise ValueError(f"{argument} is {path!r}, which is {type(found).__name__}, not a module")
    return found


def find_callable(module: nn.Module, path: str, argument: str) -> Callable[..., Any]:
    """The module or function at `path`."""
    found: Callable[..., Any] = find(module, path, argument)
    if not callable(found):
        raise ValueError(f"{argument} is {path!r}, which is {type(found).__name__} and cannot be called")
    return found


def readings(block: nn.Module) -> list[list[nn.Module]]:
    """How a block may be called: as it is, or, where it is a container, its layers one by one."""
    layers = list(block) if isinstance(block, nn.ModuleList | nn.Sequential) else []
    plain = type(block).forward is nn.ModuleList.forward  # a list alone cannot be called
    return [found for found in ([] if plain else [block], layers) if found]


def _nearest(module: nn.Module, path: str) -> str:
    names = [name for name, _ in module.named_modules() if name]
    near = difflib.get_close_matches(path, names, n=3, cutoff=0.5)
    last = path.rsplit(".", 1)[-1]
    near += [name for name in names if name.rsplit(".", 1)[-1] == last and name not in near][:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"its parts are {', '.join(name for name, _ in module.named_children()) or 'none'}"
