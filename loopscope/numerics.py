"""Numbers as Loopscope measures them: the size of a hidden state, and the types that it is computed in."""

import torch
from jaxtyping import Float
from torch import Tensor


def scale(hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq"]:
    """Return s_k of every token: root mean square over `dim`, in fp32 or wider."""
    return wide(hidden).square().mean(dim=-1).sqrt()


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
