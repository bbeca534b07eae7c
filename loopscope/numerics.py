"""Numbers as Loopscope measures them: the size of a hidden state, the types it is computed in; which are not finite."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def scale(hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq"]:
    """Return s_k of every token: root mean square over `dim`, in fp32 or wider."""
    return wide(hidden).square().mean(dim=-1).sqrt()


def has_scale(hidden: Float[Tensor, "batch seq dim"]) -> bool:
    """Return whether every token has a finite scale: finite numbers, whose squares its type holds."""
    return bool(torch.isfinite(scale(hidden)).all())


def l2_norm(hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq"]:
    """Return the L2 norm over `dim`, in fp32 or wider: s_k times the square root of dim."""
    norm: Tensor = torch.linalg.vector_norm(wide(hidden), dim=-1)
    return norm


def matmul_dtype(x: Tensor) -> torch.dtype:
    """Return what a matmul with x is computed in: autocast's dtype where that is on, else x's own."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:  # which autocast leaves alone
        return torch.get_autocast_dtype(device)
    return x.dtype


def wide(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the values in fp32 at least: what losses and scales are measured in, whatever the model computes in."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


LOWEST_POWER = -60.0
"""Of e: logits further below the largest are raised to this. e^-60 of a million logits is lost beside 1 even in a
float64 sum, and no number on the way is denormal (denormal products make a CPU's matrix product ten times slower)."""


def powers_of(below: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return e^x of numbers that are at most 0, none below e^-60; `below` is written over.

    For sums that have a 1 among them, as that beside the largest logit has. On a CPU an exponential whose value is
    denormal or 0 can take sixty times as long as another (MKL's does), flushed denormals or not.
    """
    return below.clamp_(min=LOWEST_POWER).exp_()


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return which of some tensors hold a number that is not finite, in words; None where none does.

    Passed over are whole numbers, tensors without memory (meta), and classes of others (shards, quantised weights). One
    pass, and no memory but for the tensor named.
    """
    bad = [(name, tensor) for name, tensor in tensors if not _is_finite(tensor)]
    if not bad:
        return None
    name, tensor = bad[0]
    wrong = ~(tensor.float() if tensor.dtype.itemsize == 1 else tensor).isfinite()
    first = wrong.nonzero()[0].tolist()
    value, numbers = tensor[tuple(first)], f"{int(wrong.sum()):,} of {tensor.numel():,}"
    more = {0: "", 1: "; another weight has such, too"}.get(
        len(bad) - 1, f"; {len(bad) - 1} other weights have such, too"
    )
    return f"{name} has {numbers} numbers that are not finite (the first, {value:.0f}, at {first}){more}"


def _is_finite(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.is_floating_point()
    if not plain or tensor.is_meta or tensor.numel() == 0:
        return True
    one_byte = tensor.dtype.itemsize == 1  # fp8, of which nothing is computed before it is widened
    pieces = (
        (piece.float() for piece in tensor.detach().flatten().split(2**20))
        if one_byte
        else (tensor.detach(),)
    )
    found = (torch.aminmax(piece) for piece in pieces)  # nan where there is one
    return all(bool(lowest.isfinite() and highest.isfinite()) for lowest, highest in found)
