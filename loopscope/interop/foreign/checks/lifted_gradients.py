"""Loops that a module runs under `torch.no_grad`, with no setting for it: found, run with a gradient, and named."""

import warnings
from typing import Any

import torch
from torch import Tensor

from loopscope.interop.foreign.checks.gradients import check_gradients
from loopscope.interop.foreign.tracing.answers import Position
from loopscope.interop.foreign.tracing.calls import Call, Forward
from loopscope.interop.foreign.tracing.trace import Trace
from loopscope.interop.foreign.tracing.traced_model import TracedModel


def check_and_lift_gradients(model: TracedModel, trace: Trace, start: Tensor) -> None:
    """Check that gradients go where values go; where only `torch.no_grad` is in the way, let them, and say so.

    Raises:
        ValueError: the module cuts the gradient in another way.
    """
    without = _loops_without(model, trace)
    model.interceptor.lifts = bool(without)
    where = "part of its loops"
    if without:
        named = f"loop {without[0]}" if len(without) == 1 else f"loops {without[0]} to {without[-1]}"
        where = f"{named} of {trace.depth}"
    try:
        partial = check_gradients(model, trace, start)
    except ValueError:
        if without:
            raise
        model.interceptor.lifts = True
        partial = check_gradients(model, trace, start)
    if partial and not model.interceptor.lifts:  # by no_grad, perhaps, which can be lifted
        model.interceptor.lifts = True
        lifted = check_gradients(model, trace, start)
        model.interceptor.lifts, partial = (False, partial) if lifted else (True, 0.0)
    if partial:
        model.remarks = (
            *model.remarks,
            f"{type(model.module).__name__} cuts part of the gradient inside a loop (autograd misses the finite "
            f"difference by {partial:.0%}: a router that reads a detached state, say). Verdict, direct visibility and "
            "carries do not rest on it; what is seen through the rest of the unroll is what its training sees.",
        )
    if not model.interceptor.lifts:
        return
    sentence = (
        f"The forward of {type(model.module).__name__} runs {where} without a gradient (torch.no_grad), and no setting "
        "of it that Loopscope knows switches that off. Here they have one: what is said holds of the structure, and in "
        "its training no loss reaches them."
    )
    model.remarks = (*model.remarks, sentence)
    warnings.warn(sentence, stacklevel=4)


def _loops_without(model: TracedModel, trace: Trace) -> list[int]:
    """Loops whose block is called without a gradient, though the forward is called with one."""
    without: list[int] = []

    def plan(position: Position, call: Call, original: Forward) -> Any:
        if position.layer == 0 and not torch.is_grad_enabled():
            without.append(position.loop)
        return original(*call.args, **call.kwargs)

    with torch.enable_grad(), model.fixed_draws():
        model.interceptor.run_planned(trace, plan)
    return without
