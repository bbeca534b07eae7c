"""Vectors that are the same but for rounding: what came of the one comes of the other, and is not computed again."""

import torch
from torch import Tensor

SAME = 4.0
"""Vectors are the same where no token's differ by more than so many roundings of their type, for their length."""


def same_to_rounding(one: Tensor, other: Tensor) -> bool:
    """Return whether two [batch seq dim] are alike but for rounding, token by token."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one is other or (
        _close(one[:1, :4], other[:1, :4]) and _close(one, other)
    )  # a few tell most apart


def _close(one: Tensor, other: Tensor) -> bool:
    allowed = SAME * torch.finfo(one.dtype).eps
    apart = torch.linalg.vector_norm(one - other, dim=-1)
    return bool((apart <= allowed * torch.linalg.vector_norm(other, dim=-1)).all())
