"""Jacobian penalty: keeps the loop map from stretching any direction at the state it has come to.

STARS (Yang et al., "Stabilizing Recurrent Dynamics …", arXiv 2605.26733): at the last state h the loop map g (one
carry and core) has Jacobian J; power iteration with vector-Jacobian products estimates its largest stretch, and
weight · ‖Jᵀv‖² joins the loss. Costs one loop forward and `iterations` backward passes, recorded for a second one;
that loop keeps its activations, also under gradient checkpointing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscope.guards import RandomState
from loopscope.numerics import wide
from loopscope.objectives.extras import AbstractCollector, AbstractExtra, TokenLoss
from loopscope.recurrence import LoopState, next_hidden


class JacobianPenalty(AbstractExtra):
    """Extra term weight · ‖Jᵀv‖² of the loop map at the last state, named `jacobian` (STARS)."""

    name = "jacobian"
    per_sequence = True
    differentiates = True

    def __init__(self, weight: float, iterations: int = 1, through_state: bool = False) -> None:
        self.weight = weight
        self.iterations = iterations
        self.through_state = through_state

    def collector(self, loops: int, training: bool, before: RandomState) -> AbstractCollector:
        return _Jacobian(self, training)


class _Jacobian(AbstractCollector):
    def __init__(self, settings: JacobianPenalty, training: bool) -> None:
        self.settings = settings
        self.training = training
        self.last: LoopState | None = None

    def see(self, state: LoopState) -> None:
        if state.is_last:
            self.last = state

    def terms(
        self, labels: Int[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"], token_loss: TokenLoss
    ) -> Mapping[str, Float[Tensor, ""]]:
        assert self.last is not None, "an unroll has a last loop"
        if (
            not torch.is_grad_enabled()
        ):  # a loss that is only looked at: the term cannot be had without gradients
            return {}
        stretch = squared_stretch(
            self.last, self.settings.iterations, self.settings.through_state, self.training
        )
        return {"jacobian": self.settings.weight * stretch}


def squared_stretch(
    state: LoopState, iterations: int, through_state: bool = False, random: bool = True
) -> Float[Tensor, ""]:
    """Return ‖Jᵀv‖² of the loop map at a state, mean over sequences, each with a unit vector of its own.

    Args:
        iterations: products with Jᵀ; more come closer to the largest stretch.
        through_state: whether its gradient reaches the state too. STARS holds the state fixed.
        random: draw v from torch's generator; otherwise the same v every time.
    """
    model, hidden = state.model, state.hidden
    if not through_state or not hidden.requires_grad:
        hidden = hidden.detach().requires_grad_()
    generator = None if random else torch.Generator().manual_seed(0)
    drawn = torch.randn(hidden.shape, generator=generator)
    vector = _unit(drawn.to(hidden.device, hidden.dtype))
    # Fused attention kernels have no second derivative; a checkpoint would recompute outside and find them.
    with sdpa_kernel(SDPBackend.MATH), _kept_activations(model):
        reached = next_hidden(state, hidden)
        for _ in range(iterations):
            (product,) = torch.autograd.grad(reached, hidden, vector, create_graph=True)
            vector = _unit(product)
    return wide(product).square().sum(dim=(1, 2)).mean()


@contextmanager
def _kept_activations(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing off inside, in every module that has the flag (transformers' layers have it too)."""
    on: list[tuple[Any, Any]] = [
        (module, flag)
        for module in model.modules()
        if (flag := getattr(module, "gradient_checkpointing", False)) in (True, "layer", "loop")
    ]
    for module, flag in on:
        module.gradient_checkpointing = False if flag is True else "none"
    try:
        yield
    finally:
        for module, flag in on:
            module.gradient_checkpointing = flag


def _unit(vector: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    """Length 1 per sequence, as a constant: only the last product is differentiated."""
    fixed = vector.detach()
    length: Tensor = torch.linalg.vector_norm(fixed, dim=(1, 2), keepdim=True).clamp(min=1e-12)
    return fixed / length
