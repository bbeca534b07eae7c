"""What `wrap` checks about a named exit gate: that it reads what the forward gives it, and gives a logit.

A gate's shape says nothing of what it reads: one that reads the normed state, wrapped as if it read the raw one,
would make a blind model visible. So the calls that the forward itself makes are recorded, and what each was
given is compared with what the wrapped model gives. Without such calls there is nothing to compare, and a
warning says so.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopscope.interop.foreign.tracing.calls import Call, CalledPart, recording, state_of, title
from loopscope.interop.foreign.tracing.forward_runs import HALF_TOLERANCE, LOGITS_TOLERANCE, dtype_of
from loopscope.interop.foreign.tracing.trace import Trace
from loopscope.interop.foreign.tracing.traced_model import Step, TracedModel, run_steps

FAR = (30.0, -30.0, 1000.0, -1000.0)
"""Factors at which a logit leaves [0, 1] on one side or the other, and a probability does not."""
LONGEST_CHAIN = 4
"""Parts between the block and the gate that a refusal looks for."""


@dataclass(frozen=True)
class _GateCall:
    """One state's reading by the gate in the module's own forward."""

    loop: int
    input: Tensor
    output: Tensor | None  # None where several loops' were read in one call


@torch.no_grad()
def check_gate(model: TracedModel, trace: Trace) -> None:
    """Raise ValueError where the gate is not per token, reads another tensor than the forward's, or is no logit."""
    steps = model.gate_steps
    if steps is None:
        return
    try:
        logit = run_steps(steps, trace.states[model.loops], trace)
    except RuntimeError as error:
        raise ValueError(f"gate cannot read the state ({error}); it is given H_k itself") from error
    if logit.ndim == 3 and logit.shape[-1] == 1:
        logit = logit.squeeze(-1)
    if logit.shape != trace.input_ids.shape:
        raise ValueError(
            f"gate gives {tuple(logit.shape)} for ids of shape {tuple(trace.input_ids.shape)}; an exit gate "
            "gives one logit per token, [batch, seq] or [batch, seq, 1]"
        )
    _check_input(model, trace, steps)
    _check_logit(model, trace, steps)


def _last_module(steps: Sequence[Step]) -> int | None:
    """Index of the last step whose calls can be seen."""
    return max((index for index, step in enumerate(steps) if isinstance(step, nn.Module)), default=None)


def _check_input(model: TracedModel, trace: Trace, steps: Sequence[Step]) -> None:
    index = _last_module(steps)
    if index is None:
        _warn("gate is a function, so it is not known whether the forward's own gate reads the same")
        return
    part = steps[index]
    assert isinstance(part, nn.Module)
    name, tolerance = _path(model, part), LOGITS_TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)
    gate_calls = _gate_calls(model, trace, part)
    if not gate_calls:
        _warn(
            f"gate {name!r} is never called with a loop's state in the module's forward, so it is not known whether "
            "it reads what it is given here"
        )
        return
    for call in gate_calls:
        state = trace.states[call.loop]
        ours = run_steps(steps[:index], state, trace)
        if ours.ndim == 3 and call.input.ndim == 3:  # a forward that reads only the last positions
            ours = ours[:, ours.shape[1] - call.input.shape[1] :]
        if ours.shape != call.input.shape:
            raise ValueError(
                f"gate {name!r} is given a tensor of shape {tuple(ours.shape)} here, and {tuple(call.input.shape)} "
                f"by the forward at loop {call.loop}: it does not read each token's state. Leave gate out, or give a "
                "function of H_k"
            )
        if not _close(ours, call.input, tolerance):
            gap = float((ours - call.input).abs().max())
            raise ValueError(
                f"gate {name!r} does not read what the forward gives it: at loop {call.loop} the two differ by up to "
                f"{gap:.3g}. {_reason(model, trace, part, call)}"
            )
        our_output = run_steps([part], ours, trace)
        if call.output is not None and not _close(our_output, call.output, tolerance):
            gap = (
                float((our_output - call.output).abs().max())
                if our_output.shape == call.output.shape
                else float("nan")
            )
            raise ValueError(
                f"gate {name!r} gives another value here than in the forward: at loop {call.loop} the two differ by "
                f"up to {gap:.3g}. It reads something else than the state, which changes from loop to loop. Give a "
                "function of H_k, or leave gate out"
            )


def _gate_calls(model: TracedModel, trace: Trace, part: nn.Module) -> list[_GateCall]:
    """What the forward calls the gate with, by the loop whose state it is; empty where that is not known."""
    last = model.interceptor.layers[-1]
    if part is last:
        return []
    with recording([part, last]) as calls:
        model.record(trace.input_ids, model.loops)
    gate_calls: list[_GateCall] = []
    loop = 0
    for call in calls:
        if call.module is last:
            loop += 1
        elif loop and call.slot is not None:
            gate_calls.append(_GateCall(loop, call.hidden, state_of(call.output)))
    if len(gate_calls) > 1 and all(call.loop == trace.depth for call in gate_calls):
        # All after the last loop: in the loops' order, or else not known.
        return (
            [_GateCall(at, call.input, call.output) for at, call in enumerate(gate_calls, 1)]
            if len(gate_calls) in (trace.depth - 1, trace.depth)
            else []
        )
    if len(gate_calls) == 1 and gate_calls[0].input.numel() == trace.depth * trace.states[1].numel():
        return [
            _GateCall(at, given, None) for at, given in enumerate(_unstacked(gate_calls[0].input, trace), 1)
        ]
    return gate_calls


def _unstacked(given: Tensor, trace: Trace) -> Sequence[Tensor]:
    """All loops' states, read in one call: by an axis of their own, or one after the other along the batch."""
    shape = trace.states[1].shape
    for axis in range(given.ndim):
        if given.shape[axis] == trace.depth and (*given.shape[:axis], *given.shape[axis + 1 :]) == tuple(
            shape
        ):
            return given.unbind(axis)
    return given.chunk(trace.depth) if given.shape[1:] == shape[1:] else []


def _reason(model: TracedModel, trace: Trace, part: nn.Module, call: _GateCall) -> str:
    """What the forward gives the gate, where it can be told: parts in between, or another loop's state."""
    name = _path(model, part)
    for loop, state in trace.states.items():
        if loop != call.loop and torch.equal(state, call.input):
            return f"The forward gives {name} the state of loop {loop} there: give a function of H_k, or leave gate out"
    others = [other for other in model.module.modules() if other is not model.module]
    with recording(others) as calls:
        model.record(trace.input_ids, model.loops)
    names: list[str] = []
    target = call.input
    while not torch.equal(target, trace.states[call.loop]):
        maker = next((call_before for call_before in calls if _is_source(call_before, target)), None)
        if maker is None or len(names) == LONGEST_CHAIN:
            source = f"The forward gives {name} the output of {names[0]}. " if names else ""
            return f"{source}Name what is between H_k and it: gate=['<part>', {name!r}], or a function"
        names.insert(0, _path(model, maker.module))
        target = maker.hidden
    if not names:
        return f"The forward gives {name} the block's output itself: gate={name!r}"
    return f"The forward gives {name} the output of {names[-1]}: gate={[*names, name]}"


def _is_source(call: Call, target: Tensor) -> bool:
    """Whether this call turned one state into `target`; parts that only hand it on explain nothing."""
    if call.slot is None or not isinstance(call.output, Tensor):
        return False
    return torch.equal(call.output, target) and not torch.equal(call.hidden, target)


def _check_logit(model: TracedModel, trace: Trace, steps: Sequence[Step]) -> None:
    """Refuse a gate whose output stays in [0, 1] whatever it reads: a sigmoid of it would be one too many."""
    index = _last_module(steps) or 0  # a norm before it would take the factors away
    states = [run_steps(steps[:index], state, trace) for state in trace.states.values()]
    outputs = [run_steps(steps[index:], factor * state, trace) for state in states for factor in (1.0, *FAR)]
    logits = torch.cat([logit.flatten() for logit in outputs])
    low, high = float(logits.min()), float(logits.max())
    if not (low >= 0 and high <= 1) or low == high == 0:  # zero weights: a logit of 0, which no sigmoid gives
        return
    if low == high:
        _warn(
            f"gate gives {low:.3g} for every state, so it is not known whether it is a logit; it is read as one"
        )
        return
    raise ValueError(
        f"gate gives {low:.3g} to {high:.3g}, and stays within [0, 1] for states {max(FAR):g} times as large: it is "
        f"a probability, and an exit gate gives its logit. {_logit_part(model, steps)}or add "
        "lambda p: torch.logit(p, eps=1e-6) as the last part"
    )


def _logit_part(model: TracedModel, steps: Sequence[Step]) -> str:
    """The part of the gate that may give the logit: the last map to one channel in it."""
    last = steps[-1]
    if not isinstance(last, nn.Module):
        return "Give the function without its sigmoid, "
    inner = [p for p in last.modules() if isinstance(p, nn.Linear) and p.out_features == 1 and p is not last]
    part = repr(_path(model, inner[-1])) if inner else "the part before its sigmoid"
    return f"Name the part that gives the logit ({part}), "


def _path(model: TracedModel, part: CalledPart) -> str:
    return next((name for name, candidate in model.module.named_modules() if candidate is part), title(part))


def _warn(what: str) -> None:
    warnings.warn(f"the gate could not be checked: {what}", stacklevel=7)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= tolerance * float(
        other.abs().max()
    )
