"""Whether a forward's loops are one map: a module that no set_loops runs deeper repeats its last loop beyond them."""

from itertools import islice

import torch

from loopscope.interop.foreign.tracing.trace import Trace
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.recurrence import next_hidden, unroll

SAME_MAP = 1e-3
"""Relative difference of what two loops make of one state up to which they do the same."""


@torch.no_grad()
def remark_on_differing_loops(model: TracedModel, trace: Trace) -> None:
    """Remark that loops differ (a table with a row for each, say) where the last one is what goes on past them.

    Not asked where set_loops says how to run deeper, of two loops, and where more than the state goes from loop to
    loop, which is warned of.
    """
    if model.interceptor.own.count or trace.depth < 3 or model.interceptor.side_names:
        return
    with model.fixed_draws():
        first, second = islice(unroll(model, trace.input_ids, trace.depth), 2)
        one, other = (next_hidden(state, first.hidden) for state in (first, second))
    if float((one - other).norm()) <= SAME_MAP * float(one.norm()):
        return
    model.remarks = (
        *model.remarks,
        f"The loops of {type(model.module).__name__} do not all do the same to a state (a row of a table for each, "
        f"say). Past loop {trace.depth} the last one is repeated, which may not be what it would do itself: name what "
        "sets its number of loops with set_loops.",
    )
