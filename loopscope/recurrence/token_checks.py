"""What every driver asks of token ids, their mask and a number of loops, before anything runs."""

from typing import Any

import torch
from torch import Tensor


def check_loops(loops: Any) -> int:
    """Return `loops` if it is a whole number from 1 up, else raise ValueError."""
    if isinstance(loops, bool) or not isinstance(loops, int) or loops < 1:
        raise ValueError(
            f"loops is {loops!r}; it must be a whole number from 1 up (any depth works, "
            "also beyond the trained one)"
        )
    return loops


def check_input_ids(input_ids: Tensor) -> None:
    """Raise ValueError unless `input_ids` is a non-empty [batch seq] tensor of integers."""
    if input_ids.ndim != 2 or input_ids.numel() == 0:
        raise ValueError(
            f"input_ids has shape {tuple(input_ids.shape)}; it must be [batch, seq] with at least one token "
            "(add a batch axis with input_ids[None])"
        )
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"input_ids has dtype {input_ids.dtype}; token ids must be int64 or int32")


def check_attention_mask(input_ids: Tensor, attention_mask: Any) -> Tensor | None:
    """Return where the tokens of padded texts are, [batch seq] of bool; None where nothing is padding.

    Args:
        attention_mask: 1 (True) at tokens, 0 (False) at padding, which may be left, right or both; None: no padding.

    Raises:
        ValueError: not a tensor of bool or whole numbers 0 and 1 of the shape of `input_ids`, a row without a token, or
            padding between tokens.
    """
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != input_ids.shape:
        shape = tuple(getattr(attention_mask, "shape", ()))
        raise ValueError(
            f"attention_mask is a {type(attention_mask).__name__} of shape {shape}; it must be a tensor of the "
            f"shape of input_ids, {tuple(input_ids.shape)}, with 1 at tokens and 0 at padding"
        )
    mask = attention_mask.to(input_ids.device)
    if mask.is_floating_point() or not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(
            f"attention_mask is a tensor of {mask.dtype} from {float(mask.min()):g} to {float(mask.max()):g}; it must "
            "be of bool or whole numbers, 1 at tokens and 0 at padding (what is added to scores is no such mask)"
        )
    tokens = mask != 0
    lengths = tokens.sum(dim=1)
    if bool((lengths == 0).any()):
        row = int((lengths == 0).nonzero()[0])
        raise ValueError(f"row {row} of attention_mask has no token; give every row at least one")
    first = tokens.int().argmax(dim=1)
    last = tokens.shape[1] - tokens.flip(1).int().argmax(dim=1)
    holes = last - first != lengths
    if bool(holes.any()):
        row = int(holes.nonzero()[0])
        raise ValueError(
            f"row {row} of attention_mask has padding between tokens; padding is before or after a text, not in it"
        )
    return None if bool(tokens.all()) else tokens
