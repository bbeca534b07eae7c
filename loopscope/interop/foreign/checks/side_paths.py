"""What reaches a later loop, or the head, from an earlier loop past the block's last output.

Audits hold H_k for the whole state, and the readout for a function of it alone. A second state that goes from
loop to loop can be followed, and is warned of. A head that reads several loops' states cannot be read at one:
what it would give at loop k < K is nothing that the module has.
"""

import warnings

import torch
from torch import nn

from loopscope.interop.foreign.tracing.answers import EarlierStates
from loopscope.interop.foreign.tracing.trace import Trace, perturbed, probes
from loopscope.interop.foreign.tracing.traced_model import TracedModel

SEVERAL = (
    "the head reads the states of earlier loops too (a mean or a sum over loops, a concatenation), so there is no "
    "readout of one loop's state. {ask}; or subclass loopscope.AbstractLoopedLM, and say there what an exit at loop k "
    "reads"
)

BESIDE = "what follows loop 2 depends on loop 1 also past the block's output"
INSIDE = (
    "the head reads more than the state after the last loop: something inside that loop too (what is between two of "
    "its layers, or the block's own input), so an exit at loop k is no function of H_k alone. Name a block whose "
    "output is all that the head reads; or {ask}"
)


@torch.no_grad()
def check_reads_one_loop(model: TracedModel, trace: Trace) -> None:
    """Raise ValueError where the forward is followed to a head that reads several loops' states.

    Where the forward runs any number of loops, an exit is what it gives when set to that many, whatever the head reads.
    """
    model.reads_by_depth = False
    if model.readout_steps is None and reads_earlier_loops(model, trace) and not _carries_more(model, trace):
        if not model.interceptor.own.count:
            raise ValueError(why_no_readout(model, trace))
        model.reads_by_depth = True


def why_no_readout(model: TracedModel, trace: Trace) -> str:
    """Return which sentence holds of a head that reads more than the last loop's state, and what else to give."""
    before = trace.depth - 1
    several = before < 2 or reads_earlier_loops(model, trace, before)
    named, counted = model.readout_steps is not None, bool(model.interceptor.own.count)
    asked = [
        *(["leave readout out, so that the forward is followed to its head"] if named else []),
        *([] if counted else ["name what sets the number of loops with set_loops"]),
    ]
    ask = f"{', and '.join(asked)}: an exit at loop k is then what the forward gives at k loops"
    return SEVERAL.format(ask=ask[0].upper() + ask[1:]) if several else INSIDE.format(ask=ask)


@torch.no_grad()
def reads_earlier_loops(model: TracedModel, trace: Trace, until: int | None = None) -> bool:
    """Return whether what reaches the head after the last loop depends on states of loops before it.

    Args:
        until: of the loops before this one; None: the last.
    """
    head, states, last = model.head_step, trace.states, trace.depth
    if not isinstance(head, nn.Module):
        return False
    draws = torch.Generator().manual_seed(3)
    others = {loop: perturbed(s, draws) if loop < (until or last) else s for loop, s in states.items()}
    try:
        with model.fixed_draws():
            own = model.interceptor.features(trace, states, states[last], last, head)
            changed = model.interceptor.features(trace, others, states[last], last, head)
    except ValueError:  # the head is not called there, of which others say more
        return False
    return not torch.equal(own, changed)


@torch.no_grad()
def warn_of_side_paths(model: TracedModel, trace: Trace) -> None:
    """Warn where something else than the block's output goes from loop to loop: audits see only the former."""
    if trace.depth > 2:
        has_side_path = _carries_more(model, trace)
    else:
        has_side_path = model.readout_steps is None and reads_earlier_loops(model, trace)
    if has_side_path:
        warnings.warn(
            f"{BESIDE}: part of the state goes from loop to loop beside H_k. It is followed, but scale and verdict are "
            "those of H_k alone; name the block whose output is the whole state, if there is one",
            stacklevel=5,  # the caller of wrap: this function is decorated
        )


def reads_last_alone(model: TracedModel, trace: Trace) -> bool:
    """Return whether every loop, and the head, read nothing of the loops before but the last one's state.

    Where the block's calls leave something in a cache, or return more than the state, it is not asked: no.
    """
    interceptor, own = model.interceptor, trace.states
    if interceptor.side_names or interceptor.reruns or model.reads_by_depth:
        return False
    if model.readout_steps is None and reads_earlier_loops(model, trace):
        return False
    if trace.depth == 2:
        return model.passes_on
    draws = torch.Generator().manual_seed(4)
    others = {loop: perturbed(state, draws) for loop, state in own.items()}
    with model.fixed_draws():
        for loop in range(2, trace.depth):  # each: two low passes and a high one are no pattern of one loop
            changed = {**own, **{earlier: others[earlier] for earlier in range(1, loop)}}
            if _reads_others(model, trace, changed, loop):
                return False
    return True


def _carries_more(model: TracedModel, trace: Trace) -> bool:
    """Whether a loop's input depends on more than the state before it."""
    if trace.depth == 2:  # only one state comes before the last loop: what is beside it would be added to it
        return not model.passes_on
    with model.fixed_draws():
        return _reads_others(model, trace, {**trace.states, 1: probes(trace)[1]}, 2)


def _reads_others(model: TracedModel, trace: Trace, changed: EarlierStates, loop: int) -> bool:
    """Whether what follows `loop` is another where states before it are those in `changed`."""
    interceptor, own = model.interceptor, trace.states
    entries = [interceptor.carry(trace, earlier, own[loop], loop) for earlier in (own, changed)]
    if model.replays or not torch.equal(*entries):
        return not torch.equal(*entries)
    # A loop that starts anew reads the one before through the block's other arguments.
    after = [interceptor.core(trace, earlier, entries[0], loop + 1) for earlier in (own, changed)]
    return not torch.equal(*after)
