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

from loopscope.interop.foreign.tracing.calls import Call, recording, state_of
from loopscope.interop.foreign.tracing.forward_runs import HALF_TOLERANCE, TOLERANCE, dtype_of
from loopscope.interop.foreign.tracing.trace import Trace
from loopscope.interop.foreign.tracing.traced_model import Followed, Step, run_steps

FAR = (30.0, -30.0, 1000.0, -1000.0)
"""Factors at which a logit leaves [0, 1] on one side or the other, and a probability does not."""
LONGEST = 4
"""Parts between the block and the gate that a refusal looks for."""


@dataclass(frozen=True)
class _Heard:
    """One state's reading by the gate in the module's own forward."""

    loop: int
    given: Tensor
    gave: Tensor | None  # None where several loops' were read in one call


@torch.no_grad()
def check_gate(model: Followed, trace: Trace) -> None:
    """Raise ValueError where the gate is not per token, reads another tensor than the forward's, or is no logit."""
    steps = model.gating
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
    _check_reading(model, trace, steps)
    _check_logit(model, trace, steps)


def _last_module(steps: Sequence[Step]) -> int | None:
    """Index of the last step whose calls can be seen."""
    return max((place for place, step in enumerate(steps) if isinstance(step, nn.Module)), default=None)


def _check_reading(model: Followed, trace: Trace, steps: Sequence[Step]) -> None:
    place = _last_module(steps)
    if place is None:
        _warn("gate is a function, so it is not known whether the forward's own gate reads the same")
        return
    part = steps[place]
    assert isinstance(part, nn.Module)
    name, tolerance = _path(model, part), TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)
    heard = _heard(model, trace, part)
    if not heard:
        _warn(
            f"gate {name!r} is never called with a loop's state in the module's forward, so it is not known whether "
            "it reads what it is given here"
        )
        return
    for call in heard:
        state = trace.states[call.loop]
        given = run_steps(steps[:place], state, trace)
        if given.ndim == 3 and call.given.ndim == 3:  # a forward that reads only the last positions
            given = given[:, given.shape[1] - call.given.shape[1] :]
        if given.shape != call.given.shape:
            raise ValueError(
                f"gate {name!r} is given a tensor of shape {tuple(given.shape)} here, and {tuple(call.given.shape)} "
                f"by the forward at loop {call.loop}: it does not read each token's state. Leave gate out, or give a "
                "function of H_k"
            )
        if not _close(given, call.given, tolerance):
            gap = float((given - call.given).abs().max())
            raise ValueError(
                f"gate {name!r} does not read what the forward gives it: at loop {call.loop} the two differ by up to "
                f"{gap:.3g}. {_reason(model, trace, part, call)}"
            )
        gave = run_steps([part], given, trace)
        if call.gave is not None and not _close(gave, call.gave, tolerance):
            gap = float((gave - call.gave).abs().max()) if gave.shape == call.gave.shape else float("nan")
            raise ValueError(
                f"gate {name!r} gives another value here than in the forward: at loop {call.loop} the two differ by "
                f"up to {gap:.3g}. It reads something else than the state, which changes from loop to loop. Give a "
                "function of H_k, or leave gate out"
            )


def _heard(model: Followed, trace: Trace, part: nn.Module) -> list[_Heard]:
    """What the forward calls the gate with, by the loop whose state it is; empty where that is not known."""
    last = model.follower.layers[-1]
    if part is last:
        return []
    with recording([part, last]) as calls:
        model.record(trace.input_ids, model.loops)
    heard: list[_Heard] = []
    loop = 0
    for call in calls:
        if call.module is last:
            loop += 1
        elif loop and call.slot is not None:
            heard.append(_Heard(loop, call.hidden, state_of(call.output)))
    if len(heard) > 1 and all(call.loop == trace.depth for call in heard):
        # All after the last loop: in the loops' order, or else not known.
        return (
            [_Heard(at, call.given, call.gave) for at, call in enumerate(heard, 1)]
            if len(heard) in (trace.depth - 1, trace.depth)
            else []
        )
    if len(heard) == 1 and heard[0].given.numel() == trace.depth * trace.states[1].numel():
        return [_Heard(at, given, None) for at, given in enumerate(_unstacked(heard[0].given, trace), 1)]
    return heard


def _unstacked(given: Tensor, trace: Trace) -> Sequence[Tensor]:
    """All loops' states, read in one call: by an axis of their own, or one after the other along the batch."""
    shape = trace.states[1].shape
    for axis in range(given.ndim):
        if given.shape[axis] == trace.depth and (*given.shape[:axis], *given.shape[axis + 1 :]) == tuple(
            shape
        ):
            return given.unbind(axis)
    return given.chunk(trace.depth) if given.shape[1:] == shape[1:] else []


def _reason(model: Followed, trace: Trace, part: nn.Module, call: _Heard) -> str:
    """What the forward gives the gate, where it can be told: parts in between, or another loop's state."""
    name = _path(model, part)
    for loop, state in trace.states.items():
        if loop != call.loop and torch.equal(state, call.given):
            return f"The forward gives {name} the state of loop {loop} there: give a function of H_k, or leave gate out"
    others = [other for other in model.module.modules() if other is not model.module]
    with recording(others) as calls:
        model.record(trace.input_ids, model.loops)
    names: list[str] = []
    target = call.given
    while not torch.equal(target, trace.states[call.loop]):
        maker = next((made for made in calls if _made(made, target)), None)
        if maker is None or len(names) == LONGEST:
            source = f"The forward gives {name} the output of {names[0]}. " if names else ""
            return f"{source}Name what is between H_k and it: gate=['<part>', {name!r}], or a function"
        names.insert(0, _path(model, maker.module))
        target = maker.hidden
    if not names:
        return f"The forward gives {name} the block's output itself: gate={name!r}"
    return f"The forward gives {name} the output of {names[-1]}: gate={[*names, name]}"


def _made(call: Call, target: Tensor) -> bool:
    """Whether this call turned one state into `target`; parts that only hand it on explain nothing."""
    if call.slot is None or not isinstance(call.output, Tensor):
        return False
    return torch.equal(call.output, target) and not torch.equal(call.hidden, target)


def _check_logit(model: Followed, trace: Trace, steps: Sequence[Step]) -> None:
    """Refuse a gate whose output stays in [0, 1] whatever it reads: a sigmoid of it would be one too many."""
    place = _last_module(steps) or 0  # a norm before it would take the factors away
    states = [run_steps(steps[:place], state, trace) for state in trace.states.values()]
    found = [run_steps(steps[place:], factor * state, trace) for state in states for factor in (1.0, *FAR)]
    logits = torch.cat([logit.flatten() for logit in found])
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


def _logit_part(model: Followed, steps: Sequence[Step]) -> str:
    """The part of the gate that may give the logit: the last map to one channel in it."""
    last = steps[-1]
    if not isinstance(last, nn.Module):
        return "Give the function without its sigmoid, "
    inner = [p for p in last.modules() if isinstance(p, nn.Linear) and p.out_features == 1 and p is not last]
    part = repr(_path(model, inner[-1])) if inner else "the part before its sigmoid"
    return f"Name the part that gives the logit ({part}), "


def _path(model: Followed, part: nn.Module) -> str:
    return next((name for name, found in model.module.named_modules() if found is part), type(part).__name__)


def _warn(what: str) -> None:
    warnings.warn(f"the gate could not be checked: {what}", stacklevel=7)


def _close(found: Tensor, own: Tensor, tolerance: float) -> bool:
    return found.shape == own.shape and float((found - own).abs().max()) <= tolerance * float(own.abs().max())
