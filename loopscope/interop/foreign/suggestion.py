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
from loopscope.interop.foreign.tracing.forward_runs import (
    NoLogitsError,
    carry_and_batch,
    repeatable,
)
from loopscope.interop.foreign.tracing.loop_count import LoopCount, whole_numbers
from loopscope.interop.foreign.tracing.own_forward import OwnForward
from loopscope.interop.foreign.wrap import wrap

TRIES = 8
"""Blocks that are tried, the largest first."""
COUNTS = re.compile(r"loop|recur|ut_steps|cycle|num_steps|^steps$|passes|iterations")
"""Names that a number of loops goes by in the models that people publish."""


def suggestion(module: nn.Module) -> str:
    """Return a call of `wrap` that was tried on a module, or what to look for in it, as a sentence."""
    try:
        counts = _calls(module)
    except Exception as error:
        return (
            f"Its forward failed on a batch of ids ({type(error).__name__}: {error}), so what repeats in it could not "
            'be counted: name it, and what the forward needs: loopscope.wrap(module, block="…", forward_kwargs={…})'
        )
    shared = _shared_parts(module)
    for block, times in _repeating(module, counts):
        if shared and block.startswith(shared):
            continue
        for set_loops in (*_counts(module, times), None):
            named: dict[str, Any] = {} if set_loops is None else {"set_loops": set_loops}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = wrap(module, block, **named)
            except Exception:  # a suggestion is what works; of what does not, `wrap` itself says why
                continue
            words = "".join(f", {name}={value!r}" for name, value in named.items())
            return (
                f"What repeats in it was found by running it: loopscope.wrap(module, {block!r}{words}) works, with the "
                f"trained depth {model.loops}"
            )
    if shared:
        return (
            f"{shared[0]} has the weights of {shared[1]} too, between layers with weights of their own: a stack of "
            "different layers that shares a part, not one map that is iterated. No state of it is mapped to the next "
            "by the same function, so there are no loops to audit, to exit at or to add"
        )
    if not any(times > 1 for times in counts.values()):
        return (
            "No part of it is applied more than once when it runs on a batch of ids, so it is no looped model as it "
            "stands: an audit of loops needs one that applies the same layers again and again"
        )
    return (
        "No part of it was found that is applied again and again to a state [batch, seq, dim] and can be followed; if "
        'there is one, name it: loopscope.wrap(module, block="…"), which says what it misses'
    )


def _repeating(module: nn.Module, counts: Counter[nn.Module]) -> Iterator[tuple[str, int]]:
    """Blocks of which every layer is called the same number of times, twice or more, with a state: largest first."""
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

    forward = OwnForward(module, {}, LoopCount(module, None), inputs=carry_and_batch(module))

    with torch.no_grad(), evaluating(module), repeatable(module):
        try:
            ids = forward.example(None)
        except NoLogitsError:
            raise
        except Exception:  # perhaps without the cache that it cannot do without
            forward.makes_cache = True
            ids = forward.example(None)
        with ExitStack() as stack:
            for part in module.modules():
                stack.callback(part.register_forward_hook(count).remove)
            forward.run(ids, None)
    return counts


def _shared_parts(module: nn.Module) -> tuple[str, str] | None:
    """Two places in one list of layers that have a part in common, where both layers have weights of their own too."""
    for path, layers in module.named_modules():
        if not isinstance(layers, nn.ModuleList):
            continue
        held = [{id(weight) for weight in layer.parameters()} for layer in layers]
        seen: dict[tuple[int, ...], tuple[int, str]] = {}
        for index, layer in enumerate(layers):
            if held[index] <= set().union(*held[:index], *held[index + 1 :]):
                continue  # all of it is elsewhere too: a loop that is written out, perhaps
            for name, part in layer.named_modules():
                weights = tuple(id(weight) for weight in part.parameters())
                first, place = seen.setdefault(weights, (index, f"{path}.{index}.{name}"))
                if len(weights) > 1 and first != index:
                    return place, f"{path}.{index}.{name}"
    return None


def _counts(module: nn.Module, loops: int) -> list[str]:
    """Names of what may hold the number of loops: keywords of the forward, attributes and settings of that value."""
    keywords = [name for name in inspect.signature(module.forward).parameters if COUNTS.search(name)]
    values = [
        name
        for _, numbers in whole_numbers(module)
        for name, value in numbers.items()
        if value == loops and COUNTS.search(name)
    ]
    return list(dict.fromkeys([*keywords, *values]))
