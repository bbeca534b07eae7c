"""Dynamics: the loop map H_k to H_{k+1}, linearised, by Arnoldi's iteration with Jacobian-vector products.

Products are exact. The gradient of <u, F(h)> by h is linear in u, and its own gradient by u, towards v, is J v: it is
recorded once per loop, and every product is one pass through that record: of u alone in a large model whose loop
`torch.func` can transform, else of h too. Where an operator has no second derivative, forward mode runs the loop anew
for each; where it has none of that either, a central difference stands in. Measured on the first sequence of the batch
only, so that its price does not grow with it: up to `arnoldi.PRODUCTS` products for the angular part of the first loop,
`PRODUCTS_AFTER` for that of later ones, which begin where the loop before ended, and `widened_space.FURTHER_PRODUCTS`
for the whole map, which is found among the same products; fewer where the estimate has settled before.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscope.audit.arnoldi import Product, Spectrum, spectral_radius
from loopscope.audit.model_end import why_no_further
from loopscope.audit.widened_space import widened_radius
from loopscope.numerics import l2_norm
from loopscope.recurrence import AbstractLoopedLM, LoopState, next_hidden, unroll
from loopscope.results import LoopDynamics

TOKENS = 128
"""Tokens of the first sequence that are looked at."""
SPARED_FROM = 2**27
"""Weights of a model from which on memory is spared for a second's import: a record grows with layers and channels."""
DIFFERENCE_STEP = 1e-3
"""Relative size of the central difference, where that has to do."""


def measure_dynamics(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> list[LoopDynamics]:
    """Return the spectral radius of every loop's map, and its radial and angular parts, at the trained depth.

    Args:
        input_ids: [batch seq]; the first `TOKENS` tokens of the first sequence are read.

    Returns:
        One record per loop. The last one's is that of the loop before it, and not converged, where the model does not
        run one loop more; an only one's is of zeros then.
    """
    with torch.no_grad():
        try:
            states = list(unroll(model, input_ids[:1, :TOKENS]))
        except Exception:  # a module of one length
            if input_ids.shape[1] <= TOKENS:
                raise
            states = list(unroll(model, input_ids[:1]))
    sparing = sum(weight.numel() for weight in model.parameters()) > SPARED_FROM
    found: list[LoopDynamics] = []
    known: Spectrum | None = None
    for state, following in zip(states, [*states[1:], None], strict=True):
        try:
            loop, known = _of(state, following, known, sparing)
        except Exception:  # whatever a stranger's forward says of a depth that it does not have
            if following is not None or why_no_further(state) is None:
                raise
            before = found[-1] if found else LoopDynamics(state.loop, 0.0, 0.0, 0.0, converged=False)
            loop = replace(before, loop=state.loop, converged=False)
        found.append(loop)
    return found


def _of(
    state: LoopState, following: LoopState | None, known: Spectrum | None, sparing: bool
) -> tuple[LoopDynamics, Spectrum]:
    """One loop's dynamics, and what was learned of its angular part; `known` is that of the loop before."""
    hidden = state.hidden.detach()

    def loop_map(h: Tensor) -> Tensor:
        return next_hidden(state, h)

    product = jacobian_product(loop_map, hidden, sparing)
    with torch.no_grad():
        unit = _unit(hidden)
        later = _unit(loop_map(hidden) if following is None else following.hidden)
    along = product(unit)
    angular = spectral_radius(product, hidden, lambda v: _across(v, unit), known)
    whole = widened_radius(product, angular, unit, along)
    loop = LoopDynamics(
        loop=state.loop,
        spectral_radius=whole.radius,
        radial=float((later * along).sum(dim=-1).mean()),
        angular=angular.radius,
        converged=whole.settled and angular.settled,
    )
    return loop, angular


def jacobian_product(
    function: Callable[[Tensor], Tensor], at: Float[Tensor, "batch seq dim"], sparing: bool = False
) -> Product:
    """Return the function v -> J v of another function's Jacobian at one point.

    Args:
        sparing: try `linear_product` first, for its memory.
    """

    def exact(v: Tensor) -> Tensor:
        # The fused attention kernels have no forward-mode derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            tangent: Tensor = torch.func.jvp(function, (at,), (v.to(at.dtype),))[1]
            return tangent.detach()

    def difference(v: Tensor) -> Tensor:
        step = DIFFERENCE_STEP * float(at.norm()) / max(float(v.norm()), 1e-30)
        with torch.no_grad():
            return (function(at + step * v) - function(at - step * v)) / (2 * step)

    made: list[Callable[[], Product]] = [
        lambda: recorded_product(function, at),
        lambda: exact,
        lambda: difference,
    ]
    if sparing:
        made.insert(0, lambda: linear_product(function, at))
    ways = iter(made)
    chosen: Product | None = None

    def product(v: Tensor) -> Tensor:
        nonlocal chosen
        while chosen is None:  # the first product says which
            try:
                candidate = next(ways)()
                found, chosen = candidate(v), candidate
            except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError):
                continue
            else:
                return found
        return chosen(v)

    return product


def linear_product(function: Callable[[Tensor], Tensor], at: Float[Tensor, "batch seq dim"]) -> Product:
    """Return v -> J v from a record of u -> u J alone, in which the loop's own numbers are constants.

    It takes two thirds of `recorded_product`'s memory, and asks for operations that `torch.func` can transform. Its
    first call imports PyTorch's compiler, which takes a second.

    Raises:
        RuntimeError: one of them is none, such as a `torch.autograd.Function` without `setup_context`.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        recorded: Any = torch.func.vjp(function, at.detach())
        value, pull = recorded
        push: Any = torch.func.vjp(lambda weight: pull(weight)[0], torch.zeros_like(value))[1]

    def product(v: Tensor) -> Tensor:
        found: Tensor = push(v.to(value.dtype))[0]
        return found.detach()

    return product


def recorded_product(function: Callable[[Tensor], Tensor], at: Float[Tensor, "batch seq dim"]) -> Product:
    """Return v -> J v from a record of the gradient, which is kept as long as the product is.

    Raises:
        RuntimeError: there is no gradient, or it has none itself.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        point = at.detach().requires_grad_()
        value = function(point)
        weight = torch.zeros_like(value, requires_grad=True)
        (slope,) = torch.autograd.grad(value, point, weight, create_graph=True)

    def product(v: Tensor) -> Tensor:
        found: Tensor = torch.autograd.grad(slope, weight, v.to(slope.dtype), retain_graph=True)[0]
        return found.detach()

    return product


def _unit(hidden: Tensor) -> Tensor:
    return hidden / l2_norm(hidden)[..., None].clamp(min=1e-12)


def _across(vector: Tensor, unit: Tensor) -> Tensor:
    """A vector without its part along every token's state."""
    return vector - (vector * unit).sum(dim=-1, keepdim=True) * unit
