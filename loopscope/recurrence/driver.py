"""Driving a looped model: an unroll, a run that goes on from one of its states, one loop by itself."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.kv_cache import AbstractKVCache
from loopscope.recurrence.looped_model import AbstractLoopedLM, LoopContext, LoopState, run_loops
from loopscope.recurrence.padded_rows import PaddedRows
from loopscope.recurrence.token_checks import check_attention_mask, check_input_ids, check_loops


def unroll(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    loops: int | None = None,
    gradient_loops: int | None = None,
    kv_cache: AbstractKVCache | None = None,
    attention_mask: Any = None,
) -> Generator[LoopState, Float[Tensor, "batch seq dim"] | None, None]:
    """Run the recurrence and yield one `LoopState` per loop.

    Where a model is `depth_conditioned`, its exits on the way belong to the unroll that they are on: exit k of a run of
    k loops is the last of `unroll(model, input_ids, k)`, and exit k of a longer one is another.

    Sending a tensor into the generator replaces the hidden state that is carried on, which is how
    interventions (clamping a scale, say) are written without a second driver.

    Args:
        model: any looped model.
        input_ids: token ids.
        loops: how many loops to run, from 1 up, also beyond `model.loops`; None runs the trained depth.
        gradient_loops: record a gradient through the last so many loops only (None: all). The loops before
            keep no activations; what `embed` returns keeps its gradient, for models that inject it.
        kv_cache: what the tokens before `input_ids` left behind, for a model that `remembers`.
        attention_mask: [batch, seq], 1 at tokens, 0 at padding (left, right or both; not between tokens). A row then
            has, at its tokens, what it has alone, and zeros for states at padding. None: no padding.

    Raises:
        ValueError: `loops` is not a whole number from 1 up, `input_ids` is not a non-empty [batch, seq] tensor of
            integers, or `attention_mask` is none of its shape. Raised on the call, before anything runs.
    """
    depth = check_loops(model.loops if loops is None else loops)
    check_input_ids(input_ids)
    input_ids = input_ids.contiguous()  # slices of a batch are not, and some forwards view them
    tokens = check_attention_mask(input_ids, attention_mask)
    if tokens is not None:
        if kv_cache is not None:
            raise ValueError("attention_mask and kv_cache were given; a cache knows its rows' padding itself")
        model = PaddedRows(model, tokens)
    return _unroll(model, input_ids, depth, depth if gradient_loops is None else gradient_loops, kv_cache)


def _unroll(
    model: AbstractLoopedLM,
    input_ids: Tensor,
    depth: int,
    gradient_loops: int,
    kv_cache: AbstractKVCache | None,
) -> Generator[LoopState, Tensor | None, None]:
    hidden = model.embed(input_ids) if kv_cache is None else model.embed_after(input_ids, kv_cache)
    yield from run_loops(model, hidden, 1, LoopContext(input_ids, hidden, depth, kv_cache), gradient_loops)


def unroll_from(
    state: LoopState, hidden: Float[Tensor, "batch seq dim"]
) -> Generator[LoopState, Float[Tensor, "batch seq dim"] | None, None]:
    """Go on after `state` with `hidden` in place of its H_k: yields the later loops of the same unroll."""
    if not state.is_last:
        state.model.rejoin(state)
        carried = state.model.carry(hidden, state.loop, state.context)
        yield from run_loops(state.model, carried, state.loop + 1, state.context)


def carried(state: LoopState, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    """Return the next loop's input, were `hidden` the H_k of `state`; what is beside it is that of its own unroll."""
    state.model.rejoin(state)
    return state.model.carry(hidden, state.loop, state.context)


def next_hidden(state: LoopState, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    """Return H_{k+1}, were `hidden` the H_k of `state`: one carry and core, beyond the last loop too.

    What goes from loop to loop beside H_k is that of the state's own unroll, whatever ran in between.
    """
    return state.model.core(carried(state, hidden), state.loop + 1, state.context)


def next_beside(
    state: LoopState, side: Mapping[str, Float[Tensor, "..."]]
) -> tuple[LoopState, Mapping[str, Float[Tensor, "..."]]]:
    """Return the next loop's state, and what goes on beside it, were `side` what goes on beside H_k of `state`."""
    model, context = state.model, state.context
    model.put_beside(state, side)
    hidden = state.hidden * 1.0  # another tensor than the unroll's own, which has what it had there
    later = model.core(model.carry(hidden, state.loop, context), state.loop + 1, context)
    return replace(state, loop=state.loop + 1, hidden=later), model.beside(later, state.loop + 1, context)


def narrow(state: LoopState, rows: Int[Tensor, " kept"]) -> LoopState:
    """Return a state of some of its sequences, for `unroll_from` to go on with when others have left the batch."""
    context = state.context
    kv_cache = None if context.kv_cache is None else context.kv_cache.narrow(rows)
    kept = replace(
        context, input_ids=context.input_ids[rows], embedded=context.embedded[rows], kv_cache=kv_cache
    )
    return replace(state, hidden=state.hidden[rows], context=kept)


def check_model_and_ids(model: Any, input_ids: Any) -> None:
    """Raise ValueError for what is no looped model, or ids that are no tensor."""
    if not isinstance(model, AbstractLoopedLM):
        raise ValueError(
            f"model is a {type(model).__name__}, not a looped model of Loopscope: pass loopscope.load(path), "
            "loopscope.adapt(module) or loopscope.wrap(module, block=...)"
        )
    if not isinstance(input_ids, Tensor):
        raise ValueError(
            f"input_ids is a {type(input_ids).__name__}; give a tensor of token ids [batch, seq]"
        )


@torch.no_grad()
def vocabulary_size(model: AbstractLoopedLM, like: Int[Tensor, "batch seq"]) -> int:
    """Return how many ids the model has, asked with the id 0, which every model has, through one loop.

    Args:
        like: token ids where the model is. A model that takes one length only is asked with a row of theirs.
    """
    zeros = torch.zeros_like(like[:1])
    try:
        (state,) = unroll(model, zeros[:, :1], 1)
    except Exception:  # whatever a stranger's forward says of a length that it does not take
        (state,) = unroll(model, zeros, 1)
    return state.logits().shape[-1]
