"""Dotted paths into a module: found, or refused with the nearest names that exist."""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn


def find(module: nn.Module, path: str, argument: str) -> Any:
    """Return what the dotted `path` names in `module`.

    Raises:
        ValueError: nothing there; names the argument and the nearest paths.
    """
    part: Any = module
    for name in path.split("."):
        if not name or not hasattr(part, name):
            raise ValueError(
                f"{argument} is {path!r}, but {type(module).__name__} has no such part; {_nearest(module, path)}"
            )
        part = getattr(part, name)
    return part


def find_module(module: nn.Module, path: str, argument: str) -> nn.Module:
    """Return the module at a dotted `path`.

    Raises:
        ValueError: nothing there, or no module; names the argument.
    """
    part = find(module, path, argument)
    if not isinstance(part, nn.Module):
        raise ValueError(f"{argument} is {path!r}, which is {type(part).__name__}, not a module")
    return part


def find_callable(module: nn.Module, path: str, argument: str) -> Callable[..., Any]:
    """The module or function at `path`."""
    found: Callable[..., Any] = find(module, path, argument)
    if not callable(found):
        raise ValueError(f"{argument} is {path!r}, which is {type(found).__name__} and cannot be called")
    return found


def ways_to_call(block: nn.Module) -> list[list[nn.Module]]:
    """Return the ways a block may be called: as it is, or, where it is a container, its layers one by one."""
    layers = list(block) if isinstance(block, nn.ModuleList | nn.Sequential) else []
    plain = type(block).forward is nn.ModuleList.forward  # a list alone cannot be called
    return [way for way in ([] if plain else [block], layers) if way]


def _nearest(module: nn.Module, path: str) -> str:
    names = [name for name, _ in module.named_modules() if name]
    near = difflib.get_close_matches(path, names, n=3, cutoff=0.5)
    last = path.rsplit(".", 1)[-1]
    near += [name for name in names if name.rsplit(".", 1)[-1] == last and name not in near][:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"its parts are {', '.join(name for name, _ in module.named_children()) or 'none'}"
