"""A module of no known family as a looped model: its own forward, followed. Built by `wrap`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.families.base import UnrollRecords
from loopscope.interop.foreign.tracing.answers import Answer
from loopscope.interop.foreign.tracing.forward_runs import logits_of, repeatable
from loopscope.interop.foreign.tracing.history import History, states_of
from loopscope.interop.foreign.tracing.interceptor import ForwardInterceptor
from loopscope.interop.foreign.tracing.side_state import SideState
from loopscope.interop.foreign.tracing.trace import Trace
from loopscope.recurrence import AbstractLoopedLM, LoopContext, LoopState

Step = nn.Module | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Recorded:
    trace: Trace
    history: SideState[History | None]


class TracedModel(AbstractLoopedLM):
    """Any module as a looped model: embed, core, carry, readout and head as its own forward has them.

    Attributes:
        module: the module, unchanged; the weights are its own.
        replays: the block's other arguments do not depend on its state, so its layers are called again
            directly. Otherwise each loop runs the module's forward up to itself.
        passes_on: the next loop's input is the block's output, so the carry is the identity. Otherwise
            each carry runs the module's forward up to the next loop.
        follows_head: what the forward does to the head's output (a crop, a softcap) is run too.
        reads_by_depth: what reaches the head after loop k is that of a forward set to k loops: in one of more, it
            reads what later loops leave beside their states, or a sum over all.
        runs_deeper: the forward runs more loops than the trained depth, where it can be set; otherwise the last one is
            repeated.
        reads_last_alone: a loop, and the head, read nothing of the loops before but the last one's state.

    Memory: where a model is `stateless`, or `reads_last_alone` and no gradient is recorded, one state at a time, as for
    any looped model; otherwise the states of all loops of an unroll, which the forward is answered with.
    """

    narrows = False

    def __init__(
        self,
        module: nn.Module,
        interceptor: ForwardInterceptor,
        readout: Sequence[Step] | None,
        head: Step,
        gate: Sequence[Step] | None,
        embedding: Step | None,
        loops: int | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.training = module.training
        self.loops = loops or 1
        # What the forward is set to at the trained depth; None: it is left alone.
        self.trained_count = loops if interceptor.own.count else None
        self.interceptor = interceptor
        self.records = UnrollRecords()
        self.replays = self.passes_on = self.follows_head = self.reads_by_depth = False
        self.runs_deeper = True
        self.reads_last_alone = False
        self.remembers_before_head = False  # `follows_head` without running what precedes it
        self.example: Trace | None = None  # the trace of the check's batch, for `follows_head`
        # Plain attributes: the parts are in `module` already, and would be registered twice.
        self.__dict__.update(readout_steps=readout, head_step=head, gate_steps=gate, embedding=embedding)
        self.readout_steps: Sequence[Step] | None
        self.head_step: Step
        self.gate_steps: Sequence[Step] | None
        self.embedding: Step | None

    @property
    def stateless(self) -> bool:
        """Whether nothing but H_k goes from loop to loop, or to the head."""
        return self.replays and self.passes_on and not self.reads_by_depth

    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        if self.embedding is None:
            with self.fixed_draws():
                state = self.interceptor.start(input_ids, self.trained_count)
        else:
            state = self.embedding(input_ids)
        # What the block is called with besides its state keeps its gradient where the embedding does, also in
        # an unroll whose first loops run without.
        self.records.offer(state, torch.is_grad_enabled())
        return state

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        recorded = self.recorded(context)
        if self.stateless:
            return self.interceptor.replay(recorded.trace, hidden, loop)
        history = self._history(recorded, loop - 1, context)
        before = history.of_input(hidden, loop)
        if before is not None and before.state is None:
            before = History(loop - 1, history.held(loop - 1), None)
        if self.replays:
            answer = Answer(self.interceptor.replay(recorded.trace, hidden, loop), {})
        else:
            with self.fixed_draws():
                answer = self.interceptor.answer(recorded.trace, states_of(before), hidden, loop)
        kept = None if self.reads_last_alone else before
        after = History(loop, answer.state, kept, answer.side)
        without = History(loop, None, None) if self.reads_last_alone else None
        history.after_core(answer.state, loop, after, without)
        return answer.state

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        if self.stateless:
            return hidden
        recorded = self.recorded(context)
        here = self._history(recorded, loop, context).of_state(hidden, loop)
        assert here is not None
        if here.state is not hidden:
            here = History(loop, hidden, here.before, here.side)
        carried = hidden
        if not self.passes_on:
            with self.fixed_draws():
                carried = self.interceptor.carry(
                    recorded.trace, states_of(here.before), hidden, loop, here.side
                )
        recorded.history.after_carry(carried, loop, here)
        return carried

    def rejoin(self, state: LoopState) -> None:
        if not self.stateless:
            self._history(self.recorded(state.context), state.loop, state.context).rejoin()

    def beside(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Mapping[str, Float[Tensor, "..."]]:
        names = self.interceptor.side_names
        if not names:
            return {}
        here = self._history(self.recorded(context), loop, context).of_state(hidden, loop)
        assert here is not None
        return {names[key]: value for key, value in here.side.items()}

    def put_beside(self, state: LoopState, side: Mapping[str, Float[Tensor, "..."]]) -> None:
        history = self._history(self.recorded(state.context), state.loop, state.context)
        own = history.of_state(state.hidden, state.loop)
        assert own is not None
        given = {key: side.get(name, own.side[key]) for key, name in self.interceptor.side_names.items()}
        history.put(state.loop, History(state.loop, state.hidden, own.before, given))

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch positions features"]:  # seq of them, which `wrap` checks
        recorded = self.recorded(context)
        if self.readout_steps is not None:
            return run_steps(self.readout_steps, hidden, recorded.trace)
        assert isinstance(self.head_step, nn.Module)
        here, trace = None, recorded.trace
        if not self.stateless:
            here = self._history(recorded, loop, context).of_state(hidden, loop)
        before = states_of(None if here is None else here.before)
        if self.reads_by_depth and loop < trace.depth:
            trace = trace.up_to(loop)
        with self.fixed_draws():
            return self.interceptor.features(trace, before, hidden, loop, self.head_step)

    def head(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch vocab"]:
        if not self.follows_head:
            return self.head_step(features)
        assert self.example is not None
        assert isinstance(self.head_step, nn.Module)
        flat = features.reshape(-1, features.shape[-1])
        with self.fixed_draws():
            logits = logits_of(self.interceptor.logits(self.example, flat, self.head_step))
        return logits.reshape(*features.shape[:-1], -1)

    def loop_layers(self) -> list[nn.Module] | None:
        layers = [part for part in self.interceptor.layers if isinstance(part, nn.Module)]
        whole = len(layers) == len(self.interceptor.layers)
        return layers if whole else None if self.replays else []  # a run of the forward calls other parts too

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        if self.gate_steps is None:
            return None
        logit = run_steps(self.gate_steps, hidden, self.recorded(context).trace)
        return logit.squeeze(-1) if logit.ndim == 3 else logit

    def recorded(self, context: LoopContext) -> _Recorded:
        """Return what the forward called its parts with, for this unroll's ids and depth, and this unroll's history."""
        entry: _Recorded | bool | None = self.records.of(context)
        if isinstance(entry, _Recorded):
            return entry
        with torch.set_grad_enabled(torch.is_grad_enabled() if entry is None else entry):
            trace = self._trace(context)
        recorded = _Recorded(trace, SideState(None))
        self.records.keep(context, recorded)
        return recorded

    def _trace(self, context: LoopContext) -> Trace:
        """The forward's calls at this unroll's own depth, where that can be set: its last loop is the forward's."""
        try:
            return self.record(context.input_ids, context.loops)[0]
        except Exception:  # a forward that takes no fewer, or no more, loops than it was made for
            if context.loops == self.loops or (context.loops > self.loops and self.runs_deeper):
                raise
            return self.record(context.input_ids, self.loops)[0]

    def record(
        self, input_ids: Int[Tensor, "batch seq"], loops: int, states: bool = False
    ) -> tuple[Trace, Any]:
        """Run the module's forward at this depth, where that can be set, else at its own.

        Returns:
            Its trace (with its states where they are asked for), and what it returned.

        Raises:
            ValueError: the forward ran another number of loops than it was set to.
        """
        known = self.interceptor.own.count and self.trained_count is not None
        count = loops if known else self.trained_count
        steps = (*(self.readout_steps or ()), *(self.gate_steps or ()))
        parts = [step for step in steps if isinstance(step, nn.Module)]
        with self.fixed_draws():
            trace, output = self.interceptor.record(input_ids, count, parts, states)
        if count is not None and trace.depth not in (0, count):
            raise ValueError(
                f"set_loops asks the forward for {count} loops, but it calls the block {trace.depth} times"
            )
        return trace, output

    def fixed_draws(self) -> Any:
        """Return a guard for own runs: they draw the same random numbers each time, and leave the caller's be."""
        return nullcontext() if self.module.training else repeatable(self.module)

    def __deepcopy__(self, memo: dict[int, Any]) -> "TracedModel":
        steps = (*(self.readout_steps or ()), *(self.gate_steps or ()), self.head_step, self.embedding)
        if any(
            refers_to_a_module(step)
            for step in (
                *steps,
                self.interceptor.own.arguments,
                self.interceptor.own.inputs,
                self.interceptor.own.count.how,
            )
        ):
            raise ValueError(
                "this model was wrapped with a function that refers to a module, so a copy would use the weights of "
                "the original. Copy or convert the module itself (module.float(), say) and wrap that"
            )
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    def _history(self, recorded: _Recorded, loop: int, context: LoopContext) -> SideState[History | None]:
        """This unroll's history, with everything up to `loop` run."""
        if not recorded.history.knows(loop):
            hidden = context.embedded
            for earlier in range(1, loop + 1):
                hidden = self.core(hidden, earlier, context)
                if earlier < loop:
                    hidden = self.carry(hidden, earlier, context)
        return recorded.history


def refers_to_a_module(step: Any) -> bool:
    """Return whether a function holds or names a module, which a copy of it would share."""
    if not isinstance(step, FunctionType):
        return False
    in_closure = [cell.cell_contents for cell in step.__closure__ or ()]
    in_globals = [step.__globals__.get(name) for name in step.__code__.co_names]
    return any(isinstance(value, nn.Module) for value in (*in_closure, *in_globals))


def run_steps(steps: Sequence[Step], hidden: Tensor, trace: Trace) -> Tensor:
    """Apply steps in order, each with the other arguments that the forward gave it; return what the last one gives."""
    for step in steps:
        call = trace.others.get(step) if isinstance(step, nn.Module) else None
        hidden = step(hidden) if call is None else call.repeat(hidden)
    return hidden
