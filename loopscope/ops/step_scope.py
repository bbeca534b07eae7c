"""What the operations of one training step share: weights cast once, and memory that is written again and again."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

from loopscope.ops.dispatch import is_on
from loopscope.ops.fusion import fuse_elementwise as fusing
from loopscope.ops.private_torch import storage_identity

Made = TypeVar("Made")

_buffers: ContextVar[dict[Any, Tensor] | None] = ContextVar("buffers", default=None)
_cached: ContextVar[dict[Any, Any] | None] = ContextVar("cached", default=None)


@contextmanager
def step_scope(fuse_elementwise: bool = False) -> Iterator[None]:
    """Enclose the forward and backward pass of one training step. No weight may change meanwhile.

    Args:
        fuse_elementwise: whether element-wise chains are compiled (`ops.fusion`).
    """
    before = _cached.set({}), _buffers.set({})
    try:
        with fusing(fuse_elementwise):
            yield
    finally:
        _cached.reset(before[0])
        _buffers.reset(before[1])


@contextmanager
def part_scope() -> Iterator[None]:
    """Enclose the forward and backward pass of a part of a step's batch that shares no graph with the other parts.

    FSDP2 takes a layer's gradients when the nodes that it recorded around a call have run. A weight's alias of an
    earlier part would come after those.
    """
    with _emptied(_cached):
        yield


@contextmanager
def scratch_scope() -> Iterator[None]:
    """Enclose the forward and backward pass of a part of a step's batch, after which its room is given back.

    Else the room of a backward pass would lie beside all that the next part's forward pass keeps.
    """
    with _emptied(_buffers):
        yield


@contextmanager
def _emptied(held: ContextVar[dict[Any, Made] | None]) -> Iterator[None]:
    """Begin anew with what a step holds, and go back to it afterwards; outside of a step there is nothing."""
    before = held.set(None if held.get() is None else {})
    try:
        yield
    finally:
        held.reset(before)


def cached_in_step(weight: Tensor, use: Any, make: Callable[[], Made]) -> Made:
    """Return what `make` makes of a weight: within a step made once for each use, and kept until its end."""
    cached = _cached.get()
    if cached is None:
        return make()
    # By its storage, not by where that lies: weights in shards (FSDP2) are gathered into it again and again.
    key = storage_identity(weight), weight.storage_offset(), weight.shape, weight.stride(), use
    if key not in cached:
        cached[key] = make(), weight  # itself too, so that nothing else comes to lie where it is
    return cached[key][0]


def cast_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in a matmul's dtype, without its history; cast once a step."""
    weight = weight.detach()
    if weight.dtype == dtype:
        return weight
    if not is_on("cast_weight"):
        return weight.to(dtype)
    return cached_in_step(weight, dtype, lambda: weight.to(dtype))


def scratch_buffer(use: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return room on a CPU for what an operation needs until it ends, and never gives to anybody else.

    Within a step it is the same memory for every use of one name and dtype. Freed one by one between what is
    kept, such blocks leave holes that blocks of the same size do not fit into again (a C library's aligned blocks
    need a little more than their size), a third of an fp32 step's memory.
    """
    buffers = _buffers.get()
    if buffers is None or not is_on("scratch_buffer"):
        return torch.empty(shape, dtype=dtype)
    size, key = math.prod(shape), (use, dtype)
    if key not in buffers or buffers[key].numel() < size:
        buffers[key] = torch.empty(size, dtype=dtype)
    return buffers[key][:size].view(*shape)
