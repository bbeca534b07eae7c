"""Dotted paths into a module: found, or refused with the nearest names that exist."""

import difflib
import re
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

from loopscope.interop.foreign.tracing.calls import CalledPart, Method


def find(module: nn.Module, path: str, argument: str) -> Any:
    """Return what the dotted `path` names in `module`.

    Raises:
        ValueError: nothing there; names the argument and the nearest paths.
    """
    part: Any = module
    for step in path.split("."):
        name, places = _parsed(step)
        if not name or not hasattr(part, name):
            raise ValueError(
                f"{argument} is {path!r}, but {type(module).__name__} has no such part; {_nearest(module, path)}"
            )
        part = getattr(part, name)
        for place in places:
            try:
                part = part[place]
            except (TypeError, IndexError, KeyError) as error:
                length = f"has {len(part)} entries" if hasattr(part, "__len__") else "has no entries"
                raise ValueError(f"{argument} is {path!r}, but {name} {length} ({error})") from error
    return part


def _parsed(step: str) -> tuple[str, list[int | slice]]:
    """`layers[2:4]` as its name and what follows in brackets; no name for what is of another form."""
    match = re.fullmatch(r"(\w+)((?:\[-?\d*(?::-?\d*)?\])*)", step)
    if match is None:
        return "", []
    places: list[int | slice] = []
    for text in re.findall(r"\[([^\]]*)\]", match[2]):
        if not text:
            return "", []
        bounds = [int(bound) if bound else None for bound in text.split(":")]
        places.append(slice(*bounds) if ":" in text else int(text))
    return match[1], places


def find_block(module: nn.Module, block: Any, argument: str = "block") -> list[list[CalledPart]]:
    """Return the ways a block may be called, each a list of parts that are called in order.

    Args:
        block: the dotted path of a module, of a list of layers or a slice of it (`model.layers[2:4]`), or of a method
            (`model.step`); a list of such; a module; or a function that the forward looks up by its name.

    Raises:
        ValueError: nothing there, or nothing that is called.
    """
    if isinstance(block, list | tuple):
        parts = [find_block(module, one, argument) for one in block]
        if not parts or any(len(ways[0]) != 1 for ways in parts):
            raise ValueError(
                f"{argument} is {block!r}; a list names one or more modules, methods or functions, each of them one "
                "step of a loop, in the order in which they are called"
            )
        return [[part for ways in parts for part in ways[0]]]
    if isinstance(block, str):
        found = find(module, block, argument)
        if isinstance(found, nn.Module | list):
            return ways_to_call(found)
        if callable(found):
            owner, _, name = block.rpartition(".")
            return [[Method(find(module, owner, argument) if owner else module, name)]]
        raise ValueError(
            f"{argument} is {block!r}, which is {type(found).__name__}, not a module or a method"
        )
    if isinstance(block, nn.Module):
        if not any(block is part for part in module.modules()) and not isinstance(block, nn.ModuleList):
            raise ValueError(
                f"{argument} is a {type(block).__name__} that is no part of {type(module).__name__}"
            )
        return ways_to_call(block)
    if isinstance(block, MethodType):
        return [[Method(block.__self__, block.__name__)]]
    if callable(block):
        home, name = sys.modules.get(getattr(block, "__module__", "")), getattr(block, "__name__", "")
        if home is None or getattr(home, name, None) is not block:
            raise ValueError(
                f"{argument} is the function {name or block!r}, which its module does not have under that name, so its "
                "calls cannot be followed; name the method or the part that calls it"
            )
        return [[Method(home, name)]]
    raise ValueError(
        f"{argument} is {type(block).__name__}; give the dotted path of the part that is applied once per loop "
        '("model.layers", "model.layers[2:4]", "model.step"), or a list of paths'
    )


def find_callable(module: nn.Module, path: str, argument: str) -> Callable[..., Any]:
    """The module or function at `path`."""
    found: Callable[..., Any] = find(module, path, argument)
    if not callable(found):
        raise ValueError(f"{argument} is {path!r}, which is {type(found).__name__} and cannot be called")
    return found


def ways_to_call(block: nn.Module | list[Any]) -> list[list[CalledPart]]:
    """Return the ways a block may be called: as it is, or, where it is a container, its layers one by one."""
    if isinstance(block, list):
        return [block] if block and all(isinstance(part, nn.Module) for part in block) else []
    layers: list[CalledPart] = list(block) if isinstance(block, nn.ModuleList | nn.Sequential) else []
    plain = type(block).forward is nn.ModuleList.forward  # a list alone cannot be called
    ways: list[list[CalledPart]] = [[] if plain else [block], layers]
    return [way for way in ways if way]


def _nearest(module: nn.Module, path: str) -> str:
    names = [name for name, _ in module.named_modules() if name]
    near = difflib.get_close_matches(path, names, n=3, cutoff=0.5)
    last = path.rsplit(".", 1)[-1]
    near += [name for name in names if name.rsplit(".", 1)[-1] == last and name not in near][:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"its parts are {', '.join(name for name, _ in module.named_children()) or 'none'}"
