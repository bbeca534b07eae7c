"""Attention and feed-forward in a layer, and the state between them: recognised in one call of the layer.

Both are children of the layer, known by their names. The state between them is what the first child after attention is
called with that no other child returned: a sum. Where a norm follows the sum and what it returns is the stream
(`norm(h + attention(h))`), that is what is shown instead: the sum after the feed-forward is made of one or the other,
and which of the two is tried.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

_ATTENTION = re.compile(r"attn|attention")
_FEED_FORWARD = re.compile(r"mlp|ffn|feed_?forward|^ff$|moe|experts")
_NEITHER = re.compile(r"norm|^ln|dropout|residual|gate$|router")
_CLOSE = 0.02
"""Of a sum's size: what may be left when it is written as the state before and what was added; bf16 leaves 0.005."""

_TOKENS = 8
"""From which on two weights per channel say something: a norm, which weighs every token, leaves much."""


@dataclass
class CallFrame:
    """One call of a module: its hidden state before and after, and the calls of modules in it."""

    module: nn.Module
    called_with: Tensor | None
    returned: Tensor | None = None
    children: list["CallFrame"] = field(default_factory=list)
    result_of: int | None = None  # which operation since the enclosing layer began made `called_with`


@dataclass(frozen=True)
class ChildCall:
    """A call of a child in one call of its layer: the `nth` of that module, from 0."""

    module: nn.Module
    nth: int


@dataclass(frozen=True)
class Middle:
    """Where the state between attention and feed-forward is seen."""

    call: ChildCall
    side: Literal["called with", "returned"]
    operation: int | None  # which one of the layer's makes it, from 0; None where that is not known


@dataclass(frozen=True)
class Sublayers:
    """What was recognised in a layer."""

    attention: ChildCall | None = None
    feed_forward: ChildCall | None = None
    middle: Middle | None = None


def find_sublayers(layer: CallFrame) -> Sublayers:
    """Return where attention, feed-forward and the state between them are in this call of a layer."""
    names = {child: name for name, child in layer.module.named_children()}
    calls = layer.children
    attention = _first(calls, names, _ATTENTION, 0)
    feed_forward = _first(calls, names, _FEED_FORWARD, 0 if attention is None else attention + 1)
    return Sublayers(
        None if attention is None else _child_call(calls, attention),
        None if feed_forward is None else _child_call(calls, feed_forward),
        None if attention is None or feed_forward is None else _middle(layer, attention, feed_forward),
    )


def _first(
    calls: Sequence[CallFrame], names: dict[nn.Module, str], pattern: re.Pattern[str], start: int
) -> int | None:
    for place in range(start, len(calls)):
        name = names.get(calls[place].module, "").lower()
        if pattern.search(name) and not _NEITHER.search(name) and calls[place].returned is not None:
            return place
    return None


def _child_call(calls: Sequence[CallFrame], place: int) -> ChildCall:
    module = calls[place].module
    return ChildCall(module, sum(call.module is module for call in calls[:place]))


def _middle(layer: CallFrame, attention: int, feed_forward: int) -> Middle | None:
    calls = layer.children
    place = _computed(calls, attention + 1, feed_forward + 1)
    if place is None:
        return None
    summed = calls[place].called_with
    assert summed is not None
    middle = Middle(_child_call(calls, place), "called with", calls[place].result_of)
    normed = calls[place].returned
    after = _computed(calls, feed_forward + 1, len(calls))
    total = layer.returned if after is None else calls[after].called_with
    added = calls[len(calls) - 1 if after is None else after - 1].returned
    if normed is None or total is None or added is None or place == feed_forward:
        return middle
    left = {side: _left_over(total, state, added) for side, state in (("sum", summed), ("norm", normed))}
    if left["norm"] < min(left["sum"], _CLOSE):
        return Middle(middle.call, "returned", None)
    return middle


def _computed(calls: Sequence[CallFrame], start: int, end: int) -> int | None:
    """The first call whose state no call before it returned."""
    for place in range(start, end):
        state = calls[place].called_with
        if state is not None and all(state is not earlier.returned for earlier in calls[:place]):
            return place
    return None


def _left_over(total: Tensor, state: Tensor, added: Tensor) -> float:
    """What is left of a sum, relative to it, once it is written as a·state + b·added as well as it can be.

    Both weights are one number, or, where there are tokens enough to tell, one per channel (learned rates).
    """
    if not total.shape == state.shape == added.shape:
        return float("inf")
    columns = torch.stack([state.flatten(0, 1), added.flatten(0, 1)], dim=-1).cpu().double()  # [tokens dim 2]
    wanted = total.flatten(0, 1).cpu().double()[..., None]
    if len(columns) >= _TOKENS:
        columns, wanted = columns.transpose(0, 1), wanted.transpose(0, 1)
    else:
        columns, wanted = columns.flatten(0, 1), wanted.flatten(0, 1)
    weights = torch.linalg.lstsq(columns, wanted).solution
    left = torch.linalg.vector_norm(wanted - columns @ weights) / torch.linalg.vector_norm(wanted)
    return float(left) if bool(left.isfinite()) else float("inf")
