"""What `wrap` finds out and checks before it hands a model over, on a small random batch."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.interop.foreign.checks.side_paths import SEVERAL, reads_earlier_loops
from loopscope.interop.foreign.tracing.calls import recording
from loopscope.interop.foreign.tracing.forward_runs import (
    HALF_TOLERANCE,
    LOGITS_TOLERANCE,
    disagreement,
    dtype_of,
    every_logits_of,
    logits_of,
)
from loopscope.interop.foreign.tracing.trace import Trace, probes
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.recurrence import LoopContext, LoopState, unroll

GRADIENT_STEP = 1e-2
"""Step of the finite differences, relative to the state."""
GRADIENT_GAP = 0.05
"""Largest share by which autograd may miss a finite difference; what fp32 leaves is a hundredth of it."""


@torch.no_grad()
def choose_shortcuts(model: TracedModel, trace: Trace, start: Tensor) -> None:
    """Set `replays` and `passes_on` of a traced model where the quick way gives what following its forward gives."""
    interceptor, earlier = model.interceptor, trace.states
    interceptor.heads_at_end = _calls_after_the_loops(model, trace) == trace.depth
    tolerance = LOGITS_TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)
    with model.fixed_draws():
        replays = [
            _close(interceptor.replay(trace, start, 1), interceptor.core(trace, earlier, start, 1), tolerance)
        ]
        passes_on = []
        for loop, probe in probes(trace).items():
            carried = interceptor.carry(trace, earlier, probe, loop)
            followed = interceptor.core(trace, {**earlier, loop: probe}, carried, loop + 1)
            replays.append(_close(interceptor.replay(trace, carried, loop + 1), followed, tolerance))
            passes_on.append(torch.equal(carried, probe))
    model.replays, model.passes_on = all(replays), all(passes_on)


def _calls_after_the_loops(model: TracedModel, trace: Trace) -> int:
    """How often the forward calls its head after its last loop."""
    head, last = model.head_step, model.interceptor.layers[-1]
    if not isinstance(head, nn.Module):
        return 0
    with recording([head, last]) as calls:
        model.record(trace.input_ids, model.loops)
    order = [call.module for call in calls]
    return 0 if head is last else order[::-1].index(last)


def check_gradients(model: TracedModel, trace: Trace, start: Tensor) -> None:
    """Raise ValueError where the module cuts the gradient into a loop, between two, or before the head.

    The module's own forward is followed for it: a detach changes no value, so the quick ways of a block that is
    passed on as it is would agree with the forward, and have the gradient that it has not.
    """
    if dtype_of(model.module) not in LOGITS_TOLERANCE:
        return  # finite differences say nothing in half precision
    quick = model.replays, model.passes_on
    model.replays = model.passes_on = False
    try:
        _check_each_gradient(model, trace, start)
    finally:
        model.replays, model.passes_on = quick


def _check_each_gradient(model: TracedModel, trace: Trace, start: Tensor) -> None:
    for loop, probe in probes(trace).items():
        context = LoopContext(trace.input_ids, start, model.loops)

        def step(hidden: Tensor, loop: int = loop, context: LoopContext = context) -> Tensor:
            return model.core(model.carry(hidden, loop, context), loop + 1, context)

        def read(hidden: Tensor, loop: int = loop, context: LoopContext = context) -> Tensor:
            return model.readout(hidden, loop, context)

        _refuse_a_cut(step, probe, f"loop {loop} to the next loop")
        _refuse_a_cut(read, probe, f"loop {loop} to its head")

    # Into the first loop only whether there is one: a checkpointed block's finite difference is not its derivative
    # there, nor is that of a norm at a token that is embedded as zero.
    with torch.enable_grad():
        leaf = start.detach().clone().requires_grad_()
        entered = model.core(leaf, 1, LoopContext(trace.input_ids, start, model.loops))
        if not entered.requires_grad:
            raise ValueError(_cut("the first loop's input to the block's output", 1.0))


def _refuse_a_cut(function: Callable[[Tensor], Tensor], hidden: Tensor, between: str) -> None:
    gap = gradient_gap(function, hidden)
    if gap > GRADIENT_GAP:
        raise ValueError(_cut(between, gap))


def _cut(between: str, gap: float) -> str:
    return (
        f"the gradient from {between} misses the finite difference by {gap:.0%}: the module's forward cuts it "
        "(a no_grad prefix, a detach, truncated backpropagation as by bptt_k, reentrant checkpointing), so what a loss "
        "sees of earlier loops would be wrong. Switch that off in the module or through forward_kwargs, e.g. "
        "num_steps=(0, K) or detach_between_steps=False"
    )


def gradient_gap(function: Callable[[Tensor], Tensor], hidden: Float[Tensor, "batch seq dim"]) -> float:
    """Return the share by which autograd's derivative of `function` at `hidden` misses a central difference.

    Taken along one random direction, the same every time; 0 where the function does not change along it.
    """
    draws = torch.Generator().manual_seed(2)
    along = torch.randn(hidden.shape, generator=draws).to(hidden) * hidden.square().mean().sqrt()
    with torch.no_grad():
        change = (function(hidden + GRADIENT_STEP * along) - function(hidden - GRADIENT_STEP * along)) / (
            2 * GRADIENT_STEP
        )
    size = float(change.double().square().sum())
    if size == 0:
        return 0.0
    with torch.enable_grad():
        leaf = hidden.detach().clone().requires_grad_()
        value = function(leaf)
        if not value.requires_grad:
            return 1.0
        (gradient,) = torch.autograd.grad(value, leaf, change, allow_unused=True)
    slope = 0.0 if gradient is None else float((gradient.double() * along.double()).sum())
    return abs(slope / size - 1)


@torch.no_grad()
def check_logits(model: TracedModel, trace: Trace, output: object) -> None:
    """Raise ValueError unless readout and head of a traced model, at its last loop, give the module's own logits."""
    own, dtype = logits_of(output), dtype_of(model.module)
    *earlier, last = unroll(model, trace.input_ids)
    try:
        features = last.features()
        shape = tuple(features.shape)
        if shape[:2] != tuple(trace.input_ids.shape):
            raise ValueError(
                f"what reaches the head has shape {shape} for ids of shape {tuple(trace.input_ids.shape)}: the forward "
                "reads only some positions. Name the readout (readout='...'), or make the forward give all "
                "logits (forward_kwargs=lambda ids: {'targets': ids}, say)"
            )
        logits = model.head(features)
    except RuntimeError as error:
        raise ValueError(
            f"the head cannot read what the readout gives it ({error}); name the head or the readout"
        ) from error
    difference = disagreement(logits, own, dtype)
    if difference is None:
        _check_earlier_exits(model, earlier, output)
        return
    head, readout_steps = model.head_step, model.readout_steps
    if isinstance(head, nn.Module):
        reason = (
            _readout_reason(model, trace, last.hidden, features, head) if readout_steps is not None else None
        )
        if reason is None:
            if try_following_head(model, trace, features, own):
                _check_earlier_exits(model, earlier, output)
                return
            reason = (
                "the head reads what it reads in the forward, but its output is not the logits (a softcap, a scale, a "
                "crop of the vocabulary, another head): name the right one, or give head=a function"
            )
    else:
        reason = "readout and head together are not what the forward does with the last state"
    raise ValueError(f"at loop {model.loops} {difference}; {reason}")


def _check_earlier_exits(model: TracedModel, states: Sequence[LoopState], output: object) -> None:
    """Where the forward gives every loop's logits, the earlier ones have to agree too."""
    own = every_logits_of(output)
    if len(own) != model.loops:
        return
    for state in states:
        difference = disagreement(state.logits(), own[state.loop - 1], dtype_of(model.module))
        if difference is not None:
            raise ValueError(
                f"at loop {state.loop} {difference}: the module reads this loop otherwise than its last. Subclass "
                "loopscope.AbstractLoopedLM, whose readout knows the loop"
            )


def try_following_head(model: TracedModel, trace: Trace, features: Tensor, own: Tensor) -> bool:
    """Set `follows_head` where running on from the head gives the forward's logits; return whether it does."""
    model.example, model.follows_head = trace, True
    others = features.clone()
    others[:, 0] = others[:, 0].flip(-1) + features.square().mean().sqrt()
    try:
        logits, changed = model.head(features), model.head(others)
    except Exception:  # the forward was not made for one long sequence
        logits = changed = own
    # A head whose output does not reach the logits would agree whatever it reads; one that tokens are mixed
    # behind could not be called on chunks of tokens.
    dtype = dtype_of(model.module)
    tolerance = LOGITS_TOLERANCE.get(dtype, HALF_TOLERANCE)
    apart = _close(changed[:, 1:], logits[:, 1:], tolerance) and not _close(changed, logits, tolerance)
    model.follows_head = apart and disagreement(logits, own, dtype) is None
    return model.follows_head


@torch.no_grad()
def depends_on_depth(model: TracedModel, trace: Trace) -> bool:
    """Return whether the forward, set to run twice as deep, has other states on the way."""
    if not model.interceptor.count:
        return False
    deeper, _ = model.record(trace.input_ids, 2 * trace.depth, states=True)
    tolerance = LOGITS_TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)
    return not all(_close(deeper.states[loop], state, tolerance) for loop, state in trace.states.items())


def _readout_reason(
    model: TracedModel, trace: Trace, hidden: Tensor, features: Tensor, head: nn.Module
) -> str | None:
    """Why a named readout is not what the module uses; None where it is, or where that cannot be seen."""
    try:
        with model.fixed_draws():
            own = model.interceptor.features(trace, trace.states, hidden, model.loops, head)
    except ValueError:
        return "the forward never calls this head after its last loop: another head makes its logits"
    if own.shape[-1] != features.shape[-1]:
        return f"the readout gives {features.shape[-1]} channels, and the head is called with {own.shape[-1]}"
    own_part = features[:, features.shape[1] - own.shape[1] :]
    if _close(own_part, own, LOGITS_TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)):
        return None
    if reads_earlier_loops(model, trace):
        return SEVERAL
    gap = float((own_part - own).abs().max())
    return (
        f"the readout is not what the module uses: what reaches its head differs by {gap:.3g}. "
        "Name the right one, or leave readout out to follow the forward"
    )


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= tolerance * float(
        other.abs().max()
    )
