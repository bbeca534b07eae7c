"""Following a module's own forward through its loops: exactly, by running it with the block's calls answered.

A run answers the block's calls by a plan. Loops that are past are answered with the states that they had (nothing
is computed), the loop in question is computed or its input is taken, and there the run ends. So whatever
the forward does between block, block and head is followed as it is, gradient included, at the price of what
precedes the first loop, every time. `replay` is the quick way, right where the block's other arguments do not
depend on its state: `wrap` compares the two before it relies on it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.tracing.calls import (
    Call,
    Forward,
    Reached,
    call_of,
    stand_in,
    state_of,
    with_state,
)
from loopscope.interop.foreign.tracing.forward_runs import accepts
from loopscope.interop.foreign.tracing.loop_count import LoopCount
from loopscope.interop.foreign.tracing.trace import Trace

Arguments = Mapping[str, Any] | Callable[[Tensor], Mapping[str, Any]]


@dataclass
class _Place:
    loop: int = 0
    layer: int = -1


Plan = Callable[[_Place, Call, Forward], Any]
Past = Mapping[int, Tensor]


class Follower:
    """Runs a module's forward with the calls of one block, a module or a list of layers, answered by a plan."""

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[nn.Module],
        arguments: Arguments,
        count: LoopCount,
        hidden: str | None,
    ) -> None:
        self.module, self.layers, self.count, self.hidden = module, layers, count, hidden
        self.arguments = arguments
        self.heads_at_end = (
            False  # all loops' states reach the head after the last loop, in order, one by one
        )

    @property
    def last(self) -> int:
        """Index of the last layer."""
        return len(self.layers) - 1

    def own(self, input_ids: Int[Tensor, "batch seq"], loops: int | None) -> Any:
        """What the module's forward returns, undisturbed."""
        given = self.arguments(input_ids) if callable(self.arguments) else self.arguments
        cache = {"use_cache": False} if accepts(self.module, "use_cache") else {}
        with self.count.at(loops) as counted:
            return self.module(input_ids, **{**cache, **given, **counted})

    def start(self, input_ids: Int[Tensor, "batch seq"], loops: int | None) -> Tensor:
        """The input of the first loop."""

        def plan(place: _Place, call: Call, own: Forward) -> Any:
            raise Reached(call.hidden)

        return self._reach(Trace(input_ids, loops), plan)

    def record(
        self,
        input_ids: Int[Tensor, "batch seq"],
        loops: int | None,
        others: Sequence[nn.Module] = (),
        states: bool = False,
    ) -> tuple[Trace, Any]:
        """Run the forward whole; returns its trace, with its states where asked, and what it returned."""
        trace = Trace(input_ids, loops)

        def plan(place: _Place, call: Call, own: Forward) -> Any:
            output = own(*call.args, **call.kwargs)
            if place.layer == 0:
                trace.calls.append([])
            trace.calls[-1].append(Call(call.module, call.args, call.kwargs, call.slot, output).bare())
            if states and place.layer == self.last:
                trace.states[place.loop] = state_of(output)
            return output

        def watch(part: nn.Module) -> Callable[[Forward], Forward]:
            def answer(own: Forward) -> Forward:
                def forward(*args: Any, **kwargs: Any) -> Any:
                    trace.others[part] = call_of(part, args, kwargs).bare()
                    return own(*args, **kwargs)

                return forward

            return answer

        with ExitStack() as stack:
            for part in dict.fromkeys(others):
                if part not in self.layers:
                    stack.enter_context(stand_in(part, watch(part)))
            output = self._run(trace, plan)
        return trace, output

    def core(
        self, trace: Trace, past: Past, hidden: Float[Tensor, "batch seq dim"], loop: int
    ) -> Float[Tensor, "batch seq dim"]:
        """The block's output at `loop` for this input; beyond the trace's depth, as in its last loop.

        Args:
            past: the block's outputs at the loops before.
        """
        here = min(loop, trace.depth)

        def plan(place: _Place, call: Call, own: Forward) -> Any:
            if place.loop < here:
                return self._skip(trace, place, call, past.get(place.loop, hidden))
            if place.layer == 0:
                call = call.filled(hidden)
            output = own(*call.args, **call.kwargs)
            if place.layer == self.last:
                raise Reached(state_of(output))
            return output

        return self._reach(trace, plan)

    def replay(
        self, trace: Trace, hidden: Float[Tensor, "batch seq dim"], loop: int
    ) -> Float[Tensor, "batch seq dim"]:
        """The same, quickly: the layers called again with the other arguments that they had."""
        for call in trace.calls[min(loop, trace.depth) - 1]:
            hidden = call.again(hidden)
        return hidden

    def carry(
        self, trace: Trace, past: Past, hidden: Float[Tensor, "batch seq dim"], loop: int
    ) -> Float[Tensor, "batch seq dim"]:
        """The block's input at `loop` + 1 when this was its output at `loop`."""
        here = min(loop, trace.depth - 1)

        def plan(place: _Place, call: Call, own: Forward) -> Any:
            if place.loop > here:
                raise Reached(call.hidden)
            state = past.get(place.loop, hidden) if place.loop < here else hidden
            return self._skip(trace, place, call, state)

        return self._reach(trace, plan)

    def features(
        self, trace: Trace, past: Past, hidden: Float[Tensor, "batch seq dim"], loop: int, head: nn.Module
    ) -> Float[Tensor, "batch _ features"]:
        """What reaches the head after the last loop when the block's output there (and from `loop` on) is this."""
        here = min(loop, trace.depth)

        def plan(place: _Place, call: Call, own: Forward) -> Any:
            state = past.get(place.loop, hidden) if place.loop < here else hidden
            return self._skip(trace, place, call, state)

        before = trace.depth - 1 if self.heads_at_end else 0  # calls for earlier loops

        def at_head(args: Any, kwargs: Any, own: Forward) -> Any:
            nonlocal before
            before -= 1
            if before >= 0:
                return own(*args, **kwargs)
            raise Reached(call_of(head, args, kwargs).hidden)

        return self._reach(trace, plan, head, at_head)

    def logits(self, trace: Trace, features: Float[Tensor, "tokens features"], head: nn.Module) -> Any:
        """What the forward returns when these features reach the head, as one sequence."""

        def plan(place: _Place, call: Call, own: Forward) -> Any:
            return self._skip(trace, place, call, call.hidden)

        def at_head(args: Any, kwargs: Any, own: Forward) -> Any:
            call = call_of(head, args, kwargs).filled(features[None])
            return own(*call.args, **call.kwargs)

        return self._run(trace, plan, head, at_head)

    def _skip(self, trace: Trace, place: _Place, call: Call, state: Tensor) -> Any:
        """Answer a layer's call of a loop that is past: earlier layers pass on, the last gives the state."""
        answer = state if place.layer == self.last else call.hidden
        return with_state(trace.calls[min(place.loop, trace.depth) - 1][place.layer].output, answer)

    def _reach(
        self,
        trace: Trace,
        plan: Plan,
        head: nn.Module | None = None,
        at_head: Callable[[Any, Any, Forward], Any] | None = None,
    ) -> Tensor:
        try:
            self._run(trace, plan, head, at_head)
        except Reached as end:
            found: Tensor = end.value
            return found
        name = type(self.module).__name__
        if head is not None:
            raise ValueError(
                f"the forward of {name} does not call this head after its last loop, so it cannot be followed to it: "
                "name the readout too, and the head that makes the logits"
            )
        raise ValueError(
            f"the forward of {name} called its block less often than before; it must not stop early"
        )

    def _run(
        self,
        trace: Trace,
        plan: Plan,
        head: nn.Module | None = None,
        at_head: Callable[[Any, Any, Forward], Any] | None = None,
    ) -> Any:
        place = _Place()

        def watch(layer: int, part: nn.Module) -> Callable[[Forward], Forward]:
            def answer(own: Forward) -> Forward:
                def forward(*args: Any, **kwargs: Any) -> Any:
                    if layer != (place.layer + 1) % len(self.layers):
                        raise ValueError(
                            f"the block's layers are not called once each, in their order, per loop: layer {layer} "
                            f"follows layer {place.layer}. Name a block that is"
                        )
                    place.layer = layer
                    place.loop += layer == 0
                    return plan(place, call_of(part, args, kwargs, self.hidden), own)

                return forward

            return answer

        def watch_head(own: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if place.loop >= trace.depth and place.layer == self.last and at_head is not None:
                    return at_head(args, kwargs, own)
                return own(*args, **kwargs)

            return forward

        with ExitStack() as stack:
            for layer, part in enumerate(self.layers):
                stack.enter_context(stand_in(part, watch(layer, part)))
            if head is not None:
                stack.enter_context(stand_in(head, watch_head))
            return self.own(trace.input_ids, trace.set_to)
