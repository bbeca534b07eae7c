"""The two largest of many numbers, exactly, in one pass over them.

`torch.topk(k=2)` sorts and does not use a CPU's vector units. Maxima of blocks do: the largest two are among the two
largest block maxima and the winning block's own numbers.
"""

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK_LOGITS = 128


def two_largest(values: Float[Tensor, "rows width"]) -> Float[Tensor, "rows two"]:
    """Return the largest and the second largest of every row, in this order; width of 2 or more."""
    width = values.shape[1]
    whole = width // BLOCK_LOGITS * BLOCK_LOGITS
    if width < 2 * BLOCK_LOGITS:
        return values.topk(2, dim=1).values
    blocks = values[:, :whole].unflatten(1, (-1, BLOCK_LOGITS))
    tops = blocks.amax(dim=2)
    winner = tops.argmax(dim=1)
    inside = blocks[torch.arange(len(values), device=values.device), winner]
    candidates = [inside.topk(2, dim=1).values, tops.scatter(1, winner[:, None], -torch.inf).amax(1, True)]
    if whole < width:
        candidates.append(values[:, whole:])
    return torch.cat(candidates, dim=1).topk(2, dim=1).values
