"""A looped model at one depth, as a tracer can follow it: token ids in, the logits of the last loop out."""

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.guards import evaluating
from loopscope.model.initial_state import AbstractStart, RandomStart, random_start
from loopscope.model.looped import LoopedTransformer, call_layer
from loopscope.ops.dispatch import cpu_ops
from loopscope.recurrence import unroll

SHORTEST = 3
"""Tokens of the shortest text that is traced: an axis of less is taken for one that never changes."""


class TableStart(AbstractStart):
    """The noise of `RandomStart`, kept as a table: a graph has no generator that draws the same numbers.

    A text longer than the table has no start, and its run fails.
    """

    declaration = RandomStart.declaration

    def __init__(self, positions: int, dim: int) -> None:
        super().__init__()
        drawn = random_start(torch.zeros(1, positions, dim), training=False)[0]
        self.register_buffer("noise", drawn.clone())

    noise: Tensor

    def forward(
        self, entry: Float[Tensor, "batch seq dim"], positions: Int[Tensor, "batch seq"] | None
    ) -> Float[Tensor, "batch seq dim"]:
        return self.noise[: entry.shape[1]].expand_as(entry)


class DepthModule(nn.Module):
    """A model at one depth, by the plain formula of every part.

    Attributes:
        limit: tokens that a text may have at most; None: any number.
        traced_length: tokens of the text that it is traced with. A graph has no branch: it does for every text what is
            done for this one, so it is longer than a window, where a mask is made that is right for shorter ones too.
    """

    def __init__(self, model: LoopedTransformer, loops: int, positions: int) -> None:
        """
        Args:
            positions: of the table of noise, in a model that starts from noise.
        """
        super().__init__()
        self.model, self.limit = _with_plain_parts(model, positions)
        self.loops = loops
        length = max(SHORTEST, (model.config.attention.window or 0) + 1)
        self.traced_length = length if self.limit is None else min(length, self.limit)
        self.training = False

    def forward(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Return the logits of loop `loops`."""
        return deque(unroll(self.model, input_ids, self.loops), maxlen=1)[0].logits()

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Let nothing run inside but plain formulas, without dropout or gradients."""
        with evaluating(self.model), cpu_ops("off"), torch.no_grad():
            yield


def _with_plain_parts(model: LoopedTransformer, positions: int) -> tuple[LoopedTransformer, int | None]:
    """Return a model of the same tensors whose parts can be traced, and the tokens that it has positions for."""
    plain = copy.copy(model)
    plain.__dict__ = {**model.__dict__, "_modules": dict(model._modules)}
    plain.run_layer = call_layer  # training may have put a compiled call there
    plain.gradient_checkpointing = "none"
    if not isinstance(model.start, RandomStart):
        return plain, model.positions_limit
    limit = model.positions_limit or positions
    plain.start = TableStart(limit, model.config.dim)
    return plain, limit
