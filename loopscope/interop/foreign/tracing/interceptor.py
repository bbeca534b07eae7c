"""Following a module's own forward through its loops: exactly, by running it with the block's calls answered.

A run answers the block's calls by a plan. Loops that are past are answered with the states that they had (nothing
is computed), the loop in question is computed or its input is taken, and there the run ends. So whatever
the forward does between block, block and head is followed as it is, gradient included, at the price of what
precedes the first loop, every time. `replay` is the quick way, right where the block's other arguments do not
depend on its state: `wrap` compares the two before it relies on it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.tracing.answers import Answer, EarlierStates, Position, answered
from loopscope.interop.foreign.tracing.calls import (
    Call,
    CalledPart,
    Forward,
    ForwardStop,
    apart,
    call_of,
    stand_in,
    state_of,
    with_state,
)
from loopscope.interop.foreign.tracing.gradient_prefix import KeptGradient
from loopscope.interop.foreign.tracing.own_forward import OwnForward
from loopscope.interop.foreign.tracing.remembered_calls import answering, remembering
from loopscope.interop.foreign.tracing.trace import Trace

Plan = Callable[[Position, Call, Forward], Any]


class ForwardInterceptor:
    """Runs a module's forward with the calls of one block, a module or a list of layers, answered by a plan."""

    def __init__(self, own: OwnForward, layers: Sequence[CalledPart], hidden: str | None) -> None:
        self.own, self.layers, self.hidden = own, layers, hidden
        # Whether all loops' states reach the head after the last loop, in order, one by one.
        self.heads_at_end = False
        # Whether every loop's state reaches the head, one by one: exit k is then what the head's k-th call reads.
        self.head_per_loop = False
        # Whether loops that are past are run again, their states replaced: later ones read what they leave in a cache.
        self.reruns = False
        # What goes on beside the state in what the block returns: its keys, with a name for each.
        self.side_names: dict[Any, str] = {}
        # Whether all has a gradient though the forward switches it off in places.
        self.lifts = False

    @property
    def last(self) -> int:
        """Index of the last layer."""
        return len(self.layers) - 1

    def start(self, input_ids: Int[Tensor, "batch seq"], loops: int | None) -> Tensor:
        """Return the input of the first loop."""

        def plan(position: Position, call: Call, original: Forward) -> Any:
            raise ForwardStop(call.hidden)

        entered: Tensor = self._reach(Trace(input_ids, loops), plan)
        return entered

    def record(
        self,
        input_ids: Int[Tensor, "batch seq"],
        loops: int | None,
        others: Sequence[nn.Module] = (),
        states: bool = False,
    ) -> tuple[Trace, Any]:
        """Run the forward whole; return its trace, with its states where asked, and what it returned."""
        trace = Trace(input_ids, loops)

        def plan(position: Position, call: Call, original: Forward) -> Any:
            output = original(*call.args, **call.kwargs)
            if position.layer == 0:
                trace.calls.append([])
            trace.calls[-1].append(
                Call(call.module, call.args, call.kwargs, call.slot, output).without_states()
            )
            if states and position.layer == self.last:
                trace.states[position.loop] = state_of(output)
            return output

        def watch(part: nn.Module) -> Callable[[Forward], Forward]:
            def answer(original: Forward) -> Forward:
                def forward(*args: Any, **kwargs: Any) -> Any:
                    trace.others[part] = call_of(part, args, kwargs).without_states()
                    return original(*args, **kwargs)

                return forward

            return answer

        with ExitStack() as stack:
            for part in dict.fromkeys(others):
                if part not in self.layers:
                    stack.enter_context(stand_in(part, watch(part)))
            output = self._run(trace, plan)
        return trace, output

    def core(
        self, trace: Trace, earlier: EarlierStates, hidden: Float[Tensor, "batch seq dim"], loop: int
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the block's output at `loop` for this input; beyond the trace's depth, as in its last loop.

        Args:
            earlier: the block's outputs at the loops before.
        """
        return self.answer(trace, earlier, hidden, loop).state

    def answer(
        self, trace: Trace, earlier: EarlierStates, hidden: Float[Tensor, "batch seq dim"], loop: int
    ) -> Answer:
        """Return the block's output at `loop` as `core` does, with what goes on beside it."""
        here = min(loop, trace.depth)

        def plan(position: Position, call: Call, original: Forward) -> Any:
            if position.loop < here:
                return self._skip(trace, position, call, earlier.get(position.loop, hidden), original)
            if position.layer == 0:
                call = call.with_hidden(hidden.clone())
            output = original(*call.args, **call.kwargs)
            if position.layer == self.last:
                raise ForwardStop(Answer.of(output, self.side_names))
            return output

        found: Answer = self._reach(trace, plan)
        return found

    def replay(
        self, trace: Trace, hidden: Float[Tensor, "batch seq dim"], loop: int
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the block's output at `loop` the quick way: its layers called again.

        Their other arguments are those that they had in the trace.
        """
        hidden = hidden.clone()  # the first layer may write into it
        for call in trace.calls[min(loop, trace.depth) - 1]:
            hidden = call.repeat(hidden)
        return hidden

    def carry(
        self,
        trace: Trace,
        earlier: EarlierStates,
        hidden: Float[Tensor, "batch seq dim"],
        loop: int,
        side: Mapping[Any, Tensor] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the block's input at `loop` + 1 when `hidden` was its output at `loop`, with `side` beside it."""
        here = min(loop, trace.depth - 1)
        if here < 1:
            raise ValueError("an unroll of one loop has no step between loops")

        def plan(position: Position, call: Call, original: Forward) -> Any:
            if position.loop > here:
                raise ForwardStop(call.hidden)
            own = Answer(hidden, side or {})
            state = earlier.get(position.loop, hidden) if position.loop < here else own
            return self._skip(trace, position, call, state, original)

        carried: Tensor = self._reach(trace, plan)
        return carried

    def features(
        self,
        trace: Trace,
        earlier: EarlierStates,
        hidden: Float[Tensor, "batch seq dim"],
        loop: int,
        head: nn.Module,
    ) -> Float[Tensor, "batch _ features"]:
        """Return what reaches the head after the last loop when the block's output at `loop` is `hidden`.

        From there on every loop's is `hidden`; before, it is `earlier`.
        """
        here = min(loop, trace.depth)

        def plan(position: Position, call: Call, original: Forward) -> Any:
            state = earlier.get(position.loop, hidden) if position.loop < here else hidden
            return self._skip(trace, position, call, state, original)

        # Calls for earlier loops: those before this one's, or all before the last.
        before = here - 1 if self.head_per_loop else trace.depth - 1 if self.heads_at_end else 0

        def at_head(args: Any, kwargs: Any, original: Forward) -> Any:
            nonlocal before
            before -= 1
            if before >= 0:
                return original(*args, **kwargs)
            raise ForwardStop(call_of(head, args, kwargs).hidden)

        features: Tensor = self._reach(trace, plan, head, at_head)
        return features

    def logits(self, trace: Trace, features: Float[Tensor, "tokens features"], head: nn.Module) -> Any:
        """Return what the forward returns when these features reach the head, as one sequence."""

        def plan(position: Position, call: Call, original: Forward) -> Any:
            return self._skip(trace, position, call, call.hidden, original)

        def at_head(args: Any, kwargs: Any, original: Forward) -> Any:
            call = call_of(head, args, kwargs).with_hidden(features[None])
            return original(*call.args, **call.kwargs)

        if trace.before_head:
            with answering(trace.before_head), stand_in(head, lambda own: lambda *a, **k: at_head(a, k, own)):
                return self.own.run(trace.input_ids, trace.loop_count)
        return self._run(trace, plan, head, at_head)

    def remember_until(self, trace: Trace, head: nn.Module) -> None:
        """Let what precedes the head in this trace's runs be answered from memory when other features reach it."""
        with remembering(head) as trace.before_head:
            self.own.run(trace.input_ids, trace.loop_count)

    def run_planned(self, trace: Trace, plan: Plan) -> Any:
        """Run the forward to its end, with the block's calls answered by a plan; return what it returns."""
        return self._run(trace, plan)

    def _skip(
        self, trace: Trace, position: Position, call: Call, state: Tensor | Answer, original: Forward
    ) -> Any:
        """Answer a layer's call of a loop that is past: earlier layers pass on, the last gives the state."""
        recorded = trace.calls[min(position.loop, trace.depth) - 1][position.layer].output
        output = original(*call.args, **call.kwargs) if self.reruns else recorded
        if position.layer == self.last:
            return answered(output, state)
        return output if self.reruns else with_state(output, call.hidden)

    def _reach(
        self,
        trace: Trace,
        plan: Plan,
        head: nn.Module | None = None,
        at_head: Callable[[Any, Any, Forward], Any] | None = None,
    ) -> Any:
        try:
            self._run(trace, plan, head, at_head)
        except ForwardStop as end:
            return end.value
        name = type(self.own.module).__name__
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
        position = Position()

        def watch(layer: int, part: CalledPart) -> Callable[[Forward], Forward]:
            def answer(original: Forward) -> Forward:
                def forward(*args: Any, **kwargs: Any) -> Any:
                    if layer != (position.layer + 1) % len(self.layers):
                        raise ValueError(
                            f"the block's layers are not called once each, in their order, per loop: layer {layer} "
                            f"follows layer {position.layer}. Name a block that is"
                        )
                    position.layer = layer
                    position.loop += layer == 0
                    call = call_of(part, args, kwargs, self.hidden)
                    if layer == 0:
                        call = call.with_hidden(call.hidden.clone())
                    output = plan(position, call, original)
                    return apart(output) if layer == self.last else output

                return forward

            return answer

        def watch_head(original: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                at_end = position.loop >= trace.depth and position.layer == self.last
                if at_head is not None and (at_end or self.head_per_loop):
                    return at_head(args, kwargs, original)
                return original(*args, **kwargs)

            return forward

        with ExitStack() as stack:
            if self.lifts:
                stack.enter_context(KeptGradient())
            for layer, part in enumerate(self.layers):
                stack.enter_context(stand_in(part, watch(layer, part)))
            if head is not None:
                stack.enter_context(stand_in(head, watch_head))
            return self.own.run(trace.input_ids, trace.loop_count)
