"""What repeats in a module of no known family: counted by hooks in a run of its own, and tried with `wrap`."""

import inspect
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.guards import evaluating
from loopscope.interop.foreign.checks.agreement import SOME_POSITIONS
from loopscope.interop.foreign.tracing.forward_runs import (
    NoLogitsError,
    accepts,
    carry_and_batch,
    repeatable,
)
from loopscope.interop.foreign.tracing.loop_count import LoopCount, whole_numbers
from loopscope.interop.foreign.tracing.own_forward import OwnForward
from loopscope.interop.foreign.wrap import wrap

TRIES = 8
"""Blocks that are tried, the largest first."""
COUNTS = re.compile(r"loop|recur|ut_steps|cycle|(^|_)steps$|passes|iterations|iters$")
"""Names that a number of loops goes by in the models that people publish."""
TRIED_LOOPS = 4
"""Loops that a forward is asked for where it takes a number and has none, or one."""
WHOLE = ("targets", "labels")
"""Arguments without which some forwards give the last position's logits alone."""
NOTHING_REPEATS = (
    "No part of it is applied more than once when it runs on a batch of ids, so it is no looped model as it "
    "stands: an audit of loops needs one that applies the same layers again and again"
)


def suggestion(module: nn.Module) -> str:
    """Return a call of `wrap` that was tried on a module, or what to look for in it, as a sentence."""
    counted: list[tuple[str | None, Counter[nn.Module]]] = []
    failure: Exception | None = None
    for depth in (None, *_keywords(module)):
        try:
            counts = _calls(module, depth)
        except Exception as error:
            failure = failure or error
            continue
        counted.append((depth, counts))
        if any(times > 1 for times in counts.values()):  # deeper than it is by itself, it need not be asked
            break
    if not counted:
        return (
            f"Its forward failed on a batch of ids ({type(failure).__name__}: {failure}), so what repeats in it could "
            'not be counted: name it, and what the forward needs: loopscope.wrap(module, block="…", forward_kwargs={…})'
        )
    depth, counts = counted[-1]
    shared = _shared_parts(module)
    refused = ""
    for block, times in _repeating(module, counts):
        if shared and block.startswith(shared):
            continue
        for named in _ways(module, times, depth):
            call, said = _tried(module, block, named)
            if call is not None:
                return f"What repeats in it was found by running it: {call}"
            refused = refused or f" The largest is {block!r}, called {times} times; of it wrap says: {said}"
    if shared:
        return (
            f"{shared[0]} has the weights of {shared[1]} too, between layers with weights of their own: a stack of "
            "different layers that shares a part, not one map that is iterated. No state of it is mapped to the next "
            "by the same function, so there are no loops to audit, to exit at or to add"
        )
    if not any(times > 1 for times in counts.values()):
        return NOTHING_REPEATS
    return (
        "No part of it was found that is applied again and again to a state [batch, seq, dim] and can be followed; if "
        f'there is one, name it: loopscope.wrap(module, block="…"), which says what it misses.{refused}'
    )


def _ways(module: nn.Module, times: int, depth: str | None) -> Iterator[dict[str, Any]]:
    """What `wrap` is told of the depth: the keyword that it was run with, or what may hold its own number."""
    if depth is not None:
        yield {"set_loops": depth, "loops": TRIED_LOOPS}
        return
    for set_loops in _counts(module, times):
        yield {"set_loops": set_loops}
    yield {}


def _tried(module: nn.Module, block: str, named: dict[str, Any]) -> tuple[str | None, Exception | None]:
    """The call of `wrap` that works, as code, or what it said last."""
    given: dict[str, Any] = {}
    words = "".join(f", {name}={value!r}" for name, value in named.items())
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = wrap(module, block, **named, **given)
        except Exception as error:  # a suggestion is what works; of what does not, `wrap` itself says why
            name = next((name for name in WHOLE if accepts(module, name)), None)
            if given or name is None or SOME_POSITIONS not in str(error):
                return None, error
            given["forward_kwargs"] = lambda ids, name=name: {name: ids}
            words += f', forward_kwargs=lambda ids: {{"{name}": ids}}'
            continue
        return f"loopscope.wrap(module, {block!r}{words}) works, with the trained depth {model.loops}", None


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


def _calls(module: nn.Module, depth: str | None) -> Counter[nn.Module]:
    """How often each part is called in one run of its own forward, asked for some loops where it takes a number."""
    given = {} if depth is None else {depth: TRIED_LOOPS}
    forward = OwnForward(module, given, LoopCount(module, None), inputs=carry_and_batch(module))

    with torch.no_grad(), evaluating(module), repeatable(module):
        try:
            ids = forward.example(None)
        except NoLogitsError:
            raise
        except Exception:  # perhaps without the cache that it cannot do without
            forward.makes_cache = True
            ids = forward.example(None)
        return calls_in(module, lambda: forward.run(ids, None))


def calls_in(module: nn.Module, run: Callable[[], Any]) -> Counter[nn.Module]:
    """Return how often each part is called in a run, with a state of [batch, seq, dim] among what it returns."""
    counts: Counter[nn.Module] = Counter()

    def count(part: nn.Module, args: Any, output: Any) -> None:
        values = output if isinstance(output, tuple | list) else [output]
        counts[part] += any(isinstance(value, Tensor) and value.ndim == 3 for value in values[:1])

    with ExitStack() as stack:
        for part in module.modules():
            stack.callback(part.register_forward_hook(count).remove)
        run()
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


def _keywords(module: nn.Module) -> list[str]:
    """Keywords of the forward that may set its depth: by their name, or because it demands them beside the ids."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    named = [p.name for p in parameters if COUNTS.search(p.name) and not isinstance(p.default, bool)]
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return list(
        dict.fromkeys([*(p.name for p in parameters[1:] if p.kind in plain and p.default is p.empty), *named])
    )


def _counts(module: nn.Module, loops: int) -> list[str]:
    """Names of what may hold the number of loops: keywords of the forward, attributes and settings of that value."""
    values = [
        name
        for _, numbers in whole_numbers(module)
        for name, value in numbers.items()
        if value == loops and COUNTS.search(name)
    ]
    return list(dict.fromkeys([*_keywords(module), *values]))
