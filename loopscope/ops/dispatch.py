"""What operations written for a CPU share: where they replace PyTorch's, and in which type they compute."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics import product_type


def own_operations(x: Tensor) -> bool:
    """On a CPU, but not in a compiled layer, nor within `sdpa_kernel(SDPBackend.MATH)`: second derivatives are wanted
    there, or products counted."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.backends.cuda.flash_sdp_enabled()


def cast_once(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Under autocast, in its type already: two matrices would each cast (and keep) it for themselves."""
    return x.to(product_type(x))


def recorded(
    formula: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], above: Tensor
) -> Iterator[Tensor | None]:
    """An operation's gradients by autograd's own formulas, with a graph of their own: for second derivatives.

    Args:
        formula: what the operation computes of its inputs.
        needed: which of them want a gradient (one more than there are inputs does no harm).
    """
    # Aliases: weights are also in the history of a state, wherever layers or loops share them.
    aliases = [None if one is None else one.view_as(one) for one in inputs]
    pairs = list(zip(aliases, needed, strict=False))
    wanted = [one for one, is_needed in pairs if is_needed and one is not None]
    found = iter(torch.autograd.grad(formula(*aliases), wanted, above, create_graph=True))
    return (next(found) if is_needed else None for _, is_needed in pairs)


def listened_to(module: nn.Module) -> bool:
    """Whether calling a module does more than its forward pass."""
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks)


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A matrix that nobody listens to: calling it does x @ weight.T + bias and nothing else."""
    return type(module) is nn.Linear and not listened_to(module)
