"""Whether gradients go where values go: autograd through a module's own forward against finite differences."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.interop.foreign.tracing.forward_runs import LOGITS_TOLERANCE, dtype_of
from loopscope.interop.foreign.tracing.trace import Trace, probes
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.recurrence import LoopContext

GRADIENT_STEPS = (1e-2, 1e-3, 3e-4, 1e-4)
"""Steps of the finite differences, relative to the state, in the order in which they are tried."""
GRADIENT_GAP = 0.05
"""Largest share by which autograd may miss a finite difference; what fp32 leaves is a hundredth of it."""
WHOLE_CUT = 0.9
"""Share from which a gradient counts as cut; below, only a part of what is inside a loop is cut, as of a router."""
STEADY = 0.1
"""Largest relative change of a difference from one step to the next that counts as settled."""


def check_gradients(model: TracedModel, trace: Trace, start: Tensor) -> float:
    """Return what share of the gradient from loop to loop is cut inside one, as where a router reads a detached state.

    Raise ValueError where the module cuts the gradient into a loop, between two, or before the head.

    The module's own forward is followed for it: a detach changes no value, so the quick ways of a block that is
    passed on as it is would agree with the forward, and have the gradient that it has not.
    """
    if dtype_of(model.module) not in LOGITS_TOLERANCE:
        return 0.0  # finite differences say nothing in half precision
    quick = model.replays, model.passes_on
    model.replays = model.passes_on = False
    try:
        return _check_each_gradient(model, trace, start)
    finally:
        model.replays, model.passes_on = quick


def _check_each_gradient(model: TracedModel, trace: Trace, start: Tensor) -> float:
    partial = 0.0
    for loop, probe in probes(trace).items():
        context = LoopContext(trace.input_ids, start, model.loops)

        def step(hidden: Tensor, loop: int = loop, context: LoopContext = context) -> Tensor:
            return model.core(model.carry(hidden, loop, context), loop + 1, context)

        def read(hidden: Tensor, loop: int = loop, context: LoopContext = context) -> Tensor:
            return model.readout(hidden, loop, context)

        partial = max(partial, _refuse_a_cut(step, probe, f"loop {loop} to the next loop", WHOLE_CUT))
        _refuse_a_cut(read, probe, f"loop {loop} to its head", GRADIENT_GAP)

    # Into the first loop only whether there is one: a checkpointed block's finite difference is not its derivative
    # there, nor is that of a norm at a token that is embedded as zero.
    with torch.enable_grad():
        leaf = start.detach().clone().requires_grad_()
        entered = model.core(leaf, 1, LoopContext(trace.input_ids, start, model.loops))
        if not entered.requires_grad:
            raise ValueError(_cut("the first loop's input to the block's output", 1.0))
    return partial


def _refuse_a_cut(
    function: Callable[[Tensor], Tensor], hidden: Tensor, between: str, allowed: float
) -> float:
    """The share by which a gradient misses, where it is no rounding; more than is allowed is refused."""
    try:
        gap = gradient_gap(function, hidden)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise ValueError(
            f"there is no gradient from {between}: the module's forward writes into a tensor that its derivative needs "
            "(h += f(norm(h)), where the norm keeps h). Write h = h + f(norm(h)) there, which computes the same"
        ) from error
    if gap > allowed:
        raise ValueError(_cut(between, gap))
    return gap if gap > GRADIENT_GAP else 0.0


def _cut(between: str, gap: float) -> str:
    return (
        f"the gradient from {between} misses the finite difference by {gap:.0%}: the module's forward cuts it "
        "(a no_grad prefix, a detach, truncated backpropagation as by bptt_k, reentrant checkpointing), so what a loss "
        "sees of earlier loops would be wrong. Switch that off in the module or through forward_kwargs, e.g. "
        "num_steps=(0, K) or detach_between_steps=False"
    )


def gradient_gap(function: Callable[[Tensor], Tensor], hidden: Float[Tensor, "batch seq dim"]) -> float:
    """Return the share by which autograd's derivative of `function` at `hidden` misses a central difference.

    Taken along one random direction, the same every time; 0 where the function does not change along it. Where the two
    differ, the step is made smaller, since a router that chooses another expert within a step makes a jump that is
    no derivative; a difference that settles at no step proves nothing, and counts as 0.
    """
    draws = torch.Generator().manual_seed(2)
    along = torch.randn(hidden.shape, generator=draws).to(hidden) * hidden.square().mean().sqrt()
    gap, before, settled = 0.0, None, False
    for step in GRADIENT_STEPS:
        with torch.no_grad():
            change = (function(hidden + step * along) - function(hidden - step * along)) / (2 * step)
        gap = _gap(function, hidden, along, change)
        if gap <= GRADIENT_GAP:
            return gap
        settled |= before is not None and float((change - before).norm()) < STEADY * float(change.norm())
        before = change
    return gap if settled else 0.0


def _gap(function: Callable[[Tensor], Tensor], hidden: Tensor, along: Tensor, change: Tensor) -> float:
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
