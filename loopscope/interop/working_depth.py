"""A model at another depth than it was trained to: every unroll that names no depth runs to that one."""

import torch

from loopscope.guards import evaluating
from loopscope.interop.foreign.tracing.forward_runs import disagreement, dtype_of, logits_of
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.recurrence import AbstractLoopedLM, check_loops, unroll


def set_depth(model: AbstractLoopedLM, loops: int) -> AbstractLoopedLM:
    """Let a model run to `loops` where no depth is named, in place of its trained depth; return it.

    Raises:
        ValueError: it cannot run at that depth, as `check_depth` says.
    """
    check_depth(model, loops)
    model.loops = loops
    return model


@torch.no_grad()
def check_depth(model: AbstractLoopedLM, loops: int) -> None:
    """Refuse a depth that a model cannot run at.

    A model that follows a stranger's forward is set to the depth through that forward, and its last exit is compared
    with it on a small random batch. Any other iterates its own map so many times.

    Raises:
        ValueError: not a whole number from 1 up; a forward that cannot be set to a depth, does not run at this one, or
            whose logits there are not the model's.
    """
    if check_loops(loops) == model.loops or not isinstance(model, TracedModel):
        return
    name, interceptor = type(model.module).__name__, model.interceptor
    if not interceptor.own.count:
        raise ValueError(
            f"loops is {loops}, and nothing says how the forward of {name} is set to another depth than {model.loops}; "
            "leave it out, or give loopscope.wrap a set_loops"
        )

    with evaluating(model.module):
        ids = interceptor.own.example(model.trained_count)
        try:
            _, output = model.record(ids, loops)
            own = logits_of(output)
        except Exception as error:  # whatever a stranger's forward says of a depth that it does not take
            raise ValueError(
                f"loops is {loops}, and the forward of {name} does not run at that depth "
                f"({type(error).__name__}: {str(error)[:200]}); it was made for {model.loops}"
            ) from error
        *_, last = unroll(model, ids, loops)
        difference = disagreement(last.logits(), own, dtype_of(model.module))
    if difference is not None:
        raise ValueError(
            f"loops is {loops}: there {difference}, so {name} does at that depth what it does not do at {model.loops}"
        )
