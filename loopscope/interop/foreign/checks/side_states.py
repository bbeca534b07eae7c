"""What else a block returns and its next call reads: states beside H_k, each with a scale of its own."""

import inspect
from typing import Any

import torch
from torch import Tensor

from loopscope.interop.foreign.tracing.answers import Answer
from loopscope.interop.foreign.tracing.calls import entries_of
from loopscope.interop.foreign.tracing.trace import Trace
from loopscope.interop.foreign.tracing.traced_model import TracedModel

SIDE_CHANGE = 1.3
"""What a tensor is multiplied by to see whether the next loop reads it."""


@torch.no_grad()
def find_side_states(model: TracedModel, trace: Trace) -> None:
    """Give the interceptor the names of what goes from loop to loop beside the block's state.

    A tensor that the block returns counts where it is another one in every loop (a table that is handed through is no
    state), and the next loop's outputs change with it.
    """
    interceptor, states = model.interceptor, trace.states
    outputs = [entries_of(calls[-1].output) for calls in trace.calls]
    candidates = {
        key: _name(trace, key)
        for key, first in outputs[0].items()
        if first.ndim >= 3
        and first.shape[0] == len(trace.input_ids)
        and all(key in later and later[key].shape == first.shape for later in outputs)
        and all(not torch.equal(later[key], first) for later in outputs[1:])
    }
    if not candidates:
        return
    interceptor.side_names = candidates

    def following(side: dict[Any, Tensor]) -> list[Tensor]:
        with model.fixed_draws():
            carried = interceptor.carry(trace, {}, states[1], 1, side)
            later = interceptor.answer(trace, {1: Answer(states[1], side)}, carried, 2)
        return [later.state, *later.side.values()]

    own = {key: outputs[0][key] for key in candidates}
    before = following(own)

    def is_read(key: Any) -> bool:
        after = following({**own, key: SIDE_CHANGE * own[key]})
        return any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))

    interceptor.side_names = {key: name for key, name in candidates.items() if is_read(key)}


def _name(trace: Trace, key: Any) -> str:
    """What the block calls the argument that receives it; where that is not known, its place in what it returned."""
    sent, call = entries_of(trace.calls[0][-1].output)[key], trace.calls[1][0]
    names = list(inspect.signature(call.module.forward).parameters)
    for place, value in enumerate(call.args):
        if value is sent and place < len(names):
            return names[place]
    by_keyword = [name for name, value in call.kwargs.items() if value is sent]
    return by_keyword[0] if by_keyword else key if isinstance(key, str) else f"output {key}"
