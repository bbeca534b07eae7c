"""Which modules are a loop's layers, found in one run of a model on the first sequence of a batch.

A model may say what they are (`AbstractLoopedLM.loop_layers`); of another, they are the outermost modules that its core
calls with a hidden state. One that is itself a stack (members of one list, of one class, each called with what the one
before returned) counts as its layers. One that is called twice in a loop stands there twice.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.evaluation.lens.call_state import called_state, returned_state
from loopscope.evaluation.lens.operations import CountedOperations, ModuleForward, uncounted
from loopscope.evaluation.lens.patches import Place, StateKind
from loopscope.evaluation.lens.sublayers import CallFrame, ChildCall, Sublayers, find_sublayers
from loopscope.guards import evaluating, exchanged
from loopscope.recurrence import AbstractLoopedLM, unroll


@dataclass(frozen=True)
class Site:
    """One call of one layer in a loop.

    Attributes:
        module: the layer.
        name: its path in the model, and which call it is where there are several.
        parts: what was recognised in it.
        kinds: the states that it has, and what each is, for the whole batch.
    """

    module: nn.Module
    name: str
    parts: Sublayers
    kinds: Mapping[Place, StateKind]


@dataclass(frozen=True)
class LoopSites:
    """The layers of a loop, in the order of their calls.

    Attributes:
        sites: one per call of a layer.
        hidden: what H_k is.
        records_first: the first core of an unroll runs the model's forward for what its parts are called with.
        runs_earlier_loops: the core runs the loops before again, so that their calls come first.
    """

    sites: Sequence[Site]
    hidden: StateKind
    records_first: bool
    runs_earlier_loops: bool


@torch.no_grad()
def find_sites(model: AbstractLoopedLM, input_ids: Tensor, loops: int) -> LoopSites:
    """Run a loop or two on the first sequence, and return what the layers of a loop are.

    Args:
        loops: how deep the lens will look.
    """
    named = model.loop_layers()
    tree = _CallTree(model)
    states = unroll(model, input_ids[:1], min(loops, 2))
    with evaluating(model):
        with tree.recorded():
            first = next(states)
        frames = _layers(model, tree.root, named, first.hidden)
        modules = {frame.module for frame in frames}
        count = len(frames)
        recorded = sum(tree.at_first[module] for module in modules) > count
        again = False
        if loops > 1 and frames:
            with tree.counted(modules):
                next(states)
            again = tree.calls > count
    states.close()
    batch = input_ids.shape[0]
    return LoopSites(_sites(model, frames, batch), _kind(first.hidden, batch), recorded, again)


def _layers(
    model: AbstractLoopedLM, root: CallFrame, named: Sequence[nn.Module] | None, hidden: Tensor
) -> list[CallFrame]:
    if named is None:
        found = [frame for frame in root.children if _is_layer(frame, hidden)]
    else:
        found = list(_outermost(root, set(named)))
    lists = {
        member: holder
        for holder in model.modules()
        if isinstance(holder, nn.ModuleList | nn.Sequential)
        for member in holder
    }
    return [layer for frame in found for layer in _opened(frame, lists)]


def _is_layer(frame: CallFrame, hidden: Tensor) -> bool:
    states = frame.called_with, frame.returned
    whole = all(state is not None and state.shape == hidden.shape for state in states)
    return whole and next(frame.module.parameters(), None) is not None


def _outermost(frame: CallFrame, wanted: set[nn.Module]) -> Iterator[CallFrame]:
    for child in frame.children:
        if child.module in wanted and child.called_with is not None and child.returned is not None:
            yield child
        else:
            yield from _outermost(child, wanted)


def _opened(frame: CallFrame, lists: Mapping[nn.Module, nn.Module]) -> list[CallFrame]:
    """The layers of a stack; a module that is none stays whole."""
    stacks: dict[int, list[CallFrame]] = {}
    for inner in _outermost(frame, set(lists)):
        stacks.setdefault(id(lists[inner.module]), []).append(inner)
    layers = [
        layer for stack in stacks.values() if _chained(stack) or _is_one(frame, stack) for layer in stack
    ]
    return layers or [frame]


def _chained(stack: Sequence[CallFrame]) -> bool:
    one_class = len({type(layer.module) for layer in stack}) == 1
    pairs = pairwise(stack)
    return (
        len(stack) > 1 and one_class and all(after.called_with is before.returned for before, after in pairs)
    )


def _is_one(frame: CallFrame, stack: Sequence[CallFrame]) -> bool:
    """Whether a stack has a single layer: what attends is in it, and none of it beside."""
    return (
        len(stack) == 1
        and find_sublayers(stack[0]).attention is not None
        and find_sublayers(frame).attention is None
    )


def _sites(model: AbstractLoopedLM, frames: Sequence[CallFrame], batch: int) -> list[Site]:
    paths = {module: path.removeprefix("module.") for path, module in model.named_modules()}
    sites: list[Site] = []
    for place, frame in enumerate(frames):
        times = sum(other.module is frame.module for other in frames)
        nth = 1 + sum(other.module is frame.module for other in frames[:place])
        name = paths.get(frame.module, type(frame.module).__name__)
        parts = find_sublayers(frame)
        sites.append(
            Site(
                frame.module, f"{name}, call {nth}" if times > 1 else name, parts, _kinds(frame, parts, batch)
            )
        )
    return sites


def _kinds(frame: CallFrame, parts: Sublayers, batch: int) -> dict[Place, StateKind]:
    middle = parts.middle
    found: dict[Place, Tensor | None] = {
        "before": frame.called_with,
        "attention": _returned(frame, parts.attention),
        "middle": None,
        "feed_forward": _returned(frame, parts.feed_forward),
        "after": frame.returned,
    }
    if middle is not None:
        call = _call(frame, middle.call)
        found["middle"] = call.called_with if middle.side == "called with" else call.returned
    return {place: _kind(state, batch) for place, state in found.items() if state is not None}


def _returned(frame: CallFrame, child: ChildCall | None) -> Tensor | None:
    return None if child is None else _call(frame, child).returned


def _call(frame: CallFrame, child: ChildCall) -> CallFrame:
    return [call for call in frame.children if call.module is child.module][child.nth]


def _kind(state: Tensor, batch: int) -> StateKind:
    return StateKind((batch, *state.shape[1:]), state.dtype, state.device)


class _CallTree:
    """The calls of a model's modules while its core runs."""

    def __init__(self, model: AbstractLoopedLM) -> None:
        self.model = model
        self.root = CallFrame(model, None)
        self.at_first: Counter[nn.Module] = Counter()  # calls in the first of two equal runs of the core
        self.calls = 0  # of the modules to be counted
        self._open: list[tuple[CallFrame, CountedOperations]] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record inside what the core calls, the second time: the first time it may prepare the unroll."""
        with ExitStack() as stack:
            stack.enter_context(exchanged(self.model, self._second_core, "core"))
            for module in self.model.modules():
                if module is not self.model and not isinstance(module, torch.jit.ScriptModule):
                    stack.enter_context(exchanged(module, self._watch(module)))
            yield

    @contextmanager
    def counted(self, modules: set[nn.Module]) -> Iterator[None]:
        """Count inside how often the core calls these."""
        with ExitStack() as stack:
            stack.enter_context(exchanged(self.model, self._in_core, "core"))
            for module in modules:
                stack.enter_context(exchanged(module, self._count))
            yield

    def _second_core(self, core: ModuleForward) -> ModuleForward:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._in_core(core)(*args, **kwargs)
            self.at_first = Counter(frame.module for frame in _all_frames(self.root))
            self.root = CallFrame(self.model, None)
            return self._in_core(core)(*args, **kwargs)

        return watched

    def _in_core(self, core: ModuleForward) -> ModuleForward:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._open.append((self.root, CountedOperations()))
            try:
                return core(*args, **kwargs)
            finally:
                self._open.clear()

        return watched

    def _count(self, original: ModuleForward) -> ModuleForward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            self.calls += bool(self._open)
            return original(*args, **kwargs)

        return forward

    def _watch(self, module: nn.Module) -> Callable[[ModuleForward], ModuleForward]:
        def answer(original: ModuleForward) -> ModuleForward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if not self._open:
                    return original(*args, **kwargs)
                with uncounted():
                    found = called_state(args, kwargs)
                frame = CallFrame(module, None if found is None else found[1])
                outer, operations = self._open[-1]
                outer.children.append(frame)
                if frame.called_with is not None:
                    frame.result_of = operations.that_made(frame.called_with)
                with CountedOperations() as inside:
                    self._open.append((frame, inside))
                    try:
                        output = original(*args, **kwargs)
                    finally:
                        self._open.pop()
                with uncounted():
                    frame.returned = returned_state(output)
                return output

            return forward

        return answer


def _all_frames(frame: CallFrame) -> Iterator[CallFrame]:
    for child in frame.children:
        yield child
        yield from _all_frames(child)
