"""What a lens shows: a loop, and a layer in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from loopscope.guards import evaluating
from loopscope.numerics import l2_norm, scale, wide
from loopscope.recurrence import LoopState


@dataclass(frozen=True)
class LayerStates:
    """The states of one layer in one loop.

    Attributes:
        loop: from 1.
        layer: its place in the loop, from 0.
        name: its path in the model.
        before: the state that goes into the layer.
        attention: what its attention returns, before that is added; None where no attention was recognised.
        middle: the state between attention and feed-forward; None where it was not found.
        feed_forward: what its feed-forward returns; None where none was recognised, or it was not called.
        after: the state that the layer returns.
    """

    loop: int
    layer: int
    name: str
    before: Float[Tensor, "batch seq dim"]
    attention: Float[Tensor, "batch seq width"] | None
    middle: Float[Tensor, "batch seq dim"] | None
    feed_forward: Float[Tensor, "batch seq width"] | None
    after: Float[Tensor, "batch seq dim"]


@dataclass(frozen=True)
class LoopView:
    """One loop as a lens sees it. Logits and gate are computed when they are asked for.

    Attributes:
        state: the loop's `LoopState`; of a patched run, with the patched H_k.
        layers: the states of the layers that were asked for, in order.
        rms: root mean square of H_k over channels, the scale s_k.
        l2_norm: its L2 norm: `rms` times the square root of the width.
        cosine: of H_k and the loop before it, per token; None at loop 1.
    """

    state: LoopState
    layers: Sequence[LayerStates]
    rms: Float[Tensor, "batch seq"]
    l2_norm: Float[Tensor, "batch seq"]
    cosine: Float[Tensor, "batch seq"] | None

    @property
    def loop(self) -> int:
        """The loop, from 1."""
        return self.state.loop

    @property
    def hidden(self) -> Float[Tensor, "batch seq dim"]:
        """H_k, before anything done between loops."""
        return self.state.hidden

    @torch.no_grad()
    def logits(self) -> Float[Tensor, "batch seq vocab"]:
        """Return this exit's next-token logits."""
        with evaluating(self.state.model):
            return self.state.logits()

    @torch.no_grad()
    def gate(self) -> Float[Tensor, "batch seq"] | None:
        """Return the probability of stopping at this loop, as the model's own exit gate says; None without a gate."""
        with evaluating(self.state.model):
            logit = self.state.gate_logit()
        return None if logit is None else torch.sigmoid(wide(logit))


@torch.no_grad()
def view_of(state: LoopState, layers: Sequence[LayerStates], before: Tensor | None) -> LoopView:
    """Return a loop's view.

    Args:
        before: H of the loop before; None at loop 1. It is not kept.
    """
    hidden = state.hidden
    cosine = None if before is None else F.cosine_similarity(wide(hidden), wide(before), dim=-1)
    return LoopView(state, layers, scale(hidden), l2_norm(hidden), cosine)
