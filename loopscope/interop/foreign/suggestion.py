"""What repeats in a module of no known family: counted by hooks in a run of its own, and tried with `wrap`."""

import inspect
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.guards import evaluating
from loopscope.interop.foreign.tracing.forward_runs import accepts, example, picked, repeatable
from loopscope.interop.foreign.wrap import wrap
from loopscope.recurrence import AbstractLoopedLM

TRIES = 8
"""Blocks that are tried, the largest first."""
COUNTS = re.compile(r"loop|recur|ut_steps|cycle|num_steps|^steps$|passes|iterations")
"""Names that a number of loops goes by in the models that people publish."""


def repeats(module: nn.Module) -> bool:
    """Return whether any part of a module is applied to a state more than once in a run of it."""
    return any(times > 1 for times in _calls(module).values())


def working_call(module: nn.Module) -> tuple[str, AbstractLoopedLM] | None:
    """Return a call of `wrap` that works on a module, as code, and what it gives; None where none was found."""
    for block, calls in _repeating(module):
        for set_loops in (*_counts(module, calls), None):
            named: dict[str, Any] = {} if set_loops is None else {"set_loops": set_loops}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = wrap(module, block, **named)
            except Exception:  # a suggestion is what works; of what does not, `wrap` itself says why
                continue
            words = "".join(f", {name}={value!r}" for name, value in named.items())
            return f"loopscope.wrap(module, {block!r}{words})", model
    return None


def _repeating(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Blocks of which every layer is called the same number of times, twice or more, with a state: largest first."""
    counts = _calls(module)
    found: dict[str, tuple[int, int]] = {}
    for path, part in module.named_modules():
        if not path:
            continue
        if isinstance(part, nn.ModuleList | nn.Sequential):
            layers = list(part.children())
            for start, end, times in _runs([counts[layer] for layer in layers]):
                whole = (start, end) == (0, len(layers))
                size = sum(p.numel() for layer in layers[start:end] for p in layer.parameters())
                found[path if whole else f"{path}[{start}:{end}]"] = (size, times)
        elif counts[part] > 1:
            found[path] = (sum(p.numel() for p in part.parameters()), counts[part])
    largest = sorted(found, key=lambda path: (-found[path][0], len(path)))
    yield from ((path, found[path][1]) for path in largest[:TRIES])


def _runs(counts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Stretches of neighbours that are called equally often, more than once."""
    start = 0
    for end in range(1, len(counts) + 1):
        if end == len(counts) or counts[end] != counts[start]:
            if counts[start] > 1:
                yield start, end, counts[start]
            start = end


def _calls(module: nn.Module) -> Counter[nn.Module]:
    """How often each part is called in one run, with a state of [batch, seq, dim] among what it returns."""
    counts: Counter[nn.Module] = Counter()

    def count(part: nn.Module, args: Any, output: Any) -> None:
        values = output if isinstance(output, tuple | list) else [output]
        counts[part] += any(isinstance(value, Tensor) and value.ndim == 3 for value in values[:1])

    cache = {"use_cache": False} if accepts(module, "use_cache") else {}
    try:
        with torch.no_grad(), evaluating(module), repeatable(module):
            ids = example(module, lambda ids: picked(module(ids, **cache), None))
            with ExitStack() as stack:
                for part in module.modules():
                    stack.callback(part.register_forward_hook(count).remove)
                module(ids, **cache)
    except Exception:  # its forward needs more than ids
        return Counter()
    return counts


def _counts(module: nn.Module, loops: int) -> list[str]:
    """Names of what may hold the number of loops: keywords of the forward, attributes and settings of that value."""
    keywords = [name for name in inspect.signature(module.forward).parameters if COUNTS.search(name)]
    holders = [holder for part in module.modules() for holder in (part, getattr(part, "config", None))]
    values = [
        name
        for holder in holders
        for name, value in getattr(holder, "__dict__", {}).items()
        if type(value) is int and value == loops and COUNTS.search(name)
    ]
    return list(dict.fromkeys([*keywords, *values]))
