"""One loop's core, watched: the states of its layers kept, some of them replaced."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from loopscope.evaluation.lens.call_state import (
    called_state,
    returned_state,
    with_called_state,
    with_returned_state,
)
from loopscope.evaluation.lens.operations import ExchangedResult, ModuleForward, uncounted
from loopscope.evaluation.lens.patches import Patch, Place
from loopscope.evaluation.lens.sites import LoopSites, Site
from loopscope.evaluation.lens.sublayers import ChildCall
from loopscope.evaluation.lens.views import LayerStates
from loopscope.guards import exchanged
from loopscope.recurrence import AbstractLoopedLM


class LoopRecorder:
    """Watches the core in one loop.

    Args:
        found: the layers of a loop.
        loop: which one, from 1.
        wanted: layers whose states are kept; None: all.
        patches: those of this loop.
    """

    def __init__(
        self, found: LoopSites, loop: int, wanted: Collection[int] | None, patches: Sequence[Patch]
    ) -> None:
        self.sites, self.loop, self.wanted, self.patches = found.sites, loop, wanted, patches
        self.layers: list[LayerStates] = []
        self._twice = found.records_first if loop == 1 else found.runs_earlier_loops
        self._calls = 0
        self._passed_over = 0  # calls of earlier loops that the core runs again
        self._in_core = False
        self._here: _Visit | None = None
        self._last: tuple[Tensor, int, Tensor] | None = None  # a tensor, its version, what was kept of it

    @contextmanager
    def watching(self, model: AbstractLoopedLM) -> Iterator[None]:
        """Watch inside. Never open across a yield of the unroll."""
        with ExitStack() as stack:
            stack.enter_context(exchanged(model, self._core, "core"))
            for module in dict.fromkeys(site.module for site in self.sites):
                stack.enter_context(exchanged(module, self._layer))
            for module in dict.fromkeys(_children(self.sites)):
                stack.enter_context(exchanged(module, self._child(module)))
            yield

    def _core(self, core: ModuleForward) -> ModuleForward:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._twice:  # the unroll is then prepared, and where this loop's own calls begin is counted
                self._passed_over = 10**9
                core(*args, **kwargs)
                self._passed_over = self._calls - len(self.sites) if self.loop > 1 else 0
                self._calls = 0
            self._in_core = True
            try:
                hidden = core(*args, **kwargs)
            finally:
                self._in_core = False
            if self._calls != self._passed_over + len(self.sites):
                raise ValueError(_others(self.loop, self._calls - self._passed_over, len(self.sites)))
            return self._patched(None, "after", hidden)

        return watched

    def _layer(self, original: ModuleForward) -> ModuleForward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            place = self._calls - self._passed_over
            self._calls += self._in_core or self._passed_over > 0
            if not self._in_core or place < 0:
                return original(*args, **kwargs)
            if place >= len(self.sites):
                raise ValueError(_others(self.loop, place + 1, len(self.sites)))
            return self._visit(place, original, args, kwargs)

        return forward

    def _visit(self, place: int, original: ModuleForward, args: Any, kwargs: Any) -> Any:
        site = self.sites[place]
        visit = self._here = _Visit(place, site)
        found = called_state(args, kwargs)
        assert found is not None, "so it was when the sites were found"
        slot, before = found
        changed = self._patched(place, "before", before)
        if changed is not before:
            args, kwargs = with_called_state(args, kwargs, slot, changed)
        self._keep(visit, "before", changed)
        try:
            with self._exchange(visit):
                output = original(*args, **kwargs)
        finally:
            self._here = None
        after = returned_state(output)
        assert after is not None, "so it was when the sites were found"
        changed = self._patched(place, "after", after)
        self._keep(visit, "after", changed)
        if self._wants(place):
            kept = {name: visit.kept.get(name) for name in ("attention", "middle", "feed_forward")}
            states = visit.kept["before"], *kept.values(), visit.kept["after"]
            self.layers.append(LayerStates(self.loop, place, site.name, *states))  # type: ignore[arg-type]
        return output if changed is after else with_returned_state(output, changed)

    def _exchange(self, visit: "_Visit") -> AbstractContextManager[Any]:
        """What makes a patched state between attention and feed-forward, where an operation makes it."""
        middle = visit.site.parts.middle
        patches = [patch for patch in self.patches if patch.layer == visit.place and patch.at == "middle"]
        if not patches or middle is None or middle.operation is None:
            return nullcontext()

        def exchange(state: Tensor) -> Tensor:
            visit.exchanged = self._patched(visit.place, "middle", state)
            return visit.exchanged

        return ExchangedResult(middle.operation, exchange)

    def _child(self, module: nn.Module) -> Callable[[ModuleForward], ModuleForward]:
        def answer(original: ModuleForward) -> ModuleForward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                visit = self._here
                if visit is None:
                    return original(*args, **kwargs)
                call = visit.next_call(module)
                with uncounted():
                    self._called(visit, call, args, kwargs)
                output = original(*args, **kwargs)
                with uncounted():
                    return self._returned(visit, call, output)

            return forward

        return answer

    def _called(self, visit: "_Visit", call: ChildCall, args: Any, kwargs: Any) -> None:
        middle = visit.site.parts.middle
        if middle is not None and middle.call == call and middle.side == "called with":
            found = called_state(args, kwargs)
            if found is not None:
                patched = any(patch.layer == visit.place and patch.at == "middle" for patch in self.patches)
                if patched and found[1] is not visit.exchanged:
                    raise ValueError(
                        f"'middle' of layer {visit.place} ({visit.site.name}) at loop {self.loop} is made by another "
                        "operation than when the layers were found; patch 'attention', what is added to it"
                    )
                self._keep(visit, "middle", found[1])

    def _returned(self, visit: "_Visit", call: ChildCall, output: Any) -> Any:
        parts = visit.site.parts
        middle = parts.middle
        here: dict[Place, bool] = {
            "middle": middle is not None and middle.call == call and middle.side == "returned",
            "attention": call == parts.attention,
            "feed_forward": call == parts.feed_forward,
        }
        for at in (at for at, is_here in here.items() if is_here):
            state = returned_state(output)
            if state is None:
                break
            changed = self._patched(visit.place, at, state)
            self._keep(visit, at, changed)
            if changed is not state:
                output = with_returned_state(output, changed)
        return output

    def _patched(self, layer: int | None, at: Place, state: Tensor) -> Tensor:
        for patch in self.patches:
            if patch.layer == layer and patch.at == at:
                state = patch.of(state)
        return state

    def _wants(self, place: int) -> bool:
        return self.wanted is None or place in self.wanted

    def _keep(self, visit: "_Visit", at: Place, state: Tensor) -> None:
        """Keep a copy: the module may go on to change the state itself. What stands unchanged is copied once."""
        if not self._wants(visit.place):
            return
        if self._last is not None and self._last[0] is state and self._last[1] == state._version:
            visit.kept[at] = self._last[2]
            return
        visit.kept[at] = state.detach().clone()
        self._last = state, state._version, visit.kept[at]


class _Visit:
    """One call of one layer while it runs."""

    def __init__(self, place: int, site: Site) -> None:
        self.place, self.site = place, site
        self.kept: dict[Place, Tensor] = {}
        self.exchanged: Tensor | None = (
            None  # what stands between attention and feed-forward, where it is patched
        )
        self._calls: dict[nn.Module, int] = {}

    def next_call(self, module: nn.Module) -> ChildCall:
        """Count a call of a child."""
        nth = self._calls.get(module, 0)
        self._calls[module] = nth + 1
        return ChildCall(module, nth)


def _children(sites: Sequence[Site]) -> Iterator[nn.Module]:
    for site in sites:
        middle = None if site.parts.middle is None else site.parts.middle.call
        for call in (site.parts.attention, site.parts.feed_forward, middle):
            if call is not None:
                yield call.module


def _others(loop: int, calls: int, expected: int) -> str:
    return (
        f"loop {loop} calls its layers {calls} times, and loop 1 calls them {expected} times: a lens cannot say which "
        "is which. Look at H_k alone: for state in loopscope.unroll(model, ids)"
    )
