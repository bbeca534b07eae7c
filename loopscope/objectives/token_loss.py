"""Cross-entropy per token: the plain way, and in chunks that never hold more than one chunk of logits.

The chunked one is exact in value and gradient, also under bf16 autocast (logits are widened to fp32 before
the softmax, chunk by chunk). Its memory: one chunk of logits, whatever the number of loops; the price is
one more head product in the backward pass.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loopscope.numerics import wide

IGNORE_INDEX = -100
"""Label of a token that is not counted (PyTorch's and transformers' convention)."""

CHUNK_ELEMENTS = 5 * 2**21
"""Logits alive at once: 40 MB of fp32. Smaller chunks save little and make the head's product slower."""

KEPT_ELEMENTS = 2**24
"""Logits of all exits together that may be kept for the backward pass: 64 MB of fp32."""

Head = Callable[[Tensor], Tensor]


def plain_cross_entropy(
    head: Head, features: Float[Tensor, "batch seq dim"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """Return the cross-entropy of every token in nats, all logits at once; 0 where the label is ignored.

    Args:
        head: from features to logits.
        features: what the head reads, [batch seq dim].
        labels: [batch seq]; -100 is ignored.
    """
    return _cross_entropy(head, features.flatten(0, 1), labels.flatten()).view_as(labels)


def chunked_cross_entropy(
    head: Head,
    features: Float[Tensor, "batch seq dim"],
    labels: Int[Tensor, "batch seq"],
    vocabulary: int | None = None,
    exits: int | None = None,
) -> Float[Tensor, "batch seq"]:
    """Return the cross-entropy of every token in nats, a chunk of tokens at a time; 0 where the label is ignored.

    Equal to `plain_cross_entropy` in value and gradient.

    Args:
        vocabulary: the head's output width, to size the chunks; None asks the head with one token.
        exits: how many such losses go back together. Where the logits of all of them come to 64 MB at most, they are
            kept and not made again; None keeps none.
    """
    flat, targets = features.flatten(0, 1), labels.flatten()
    if vocabulary is None:
        with torch.no_grad():
            vocabulary = head(flat[:1]).shape[-1]
    tokens = max(1, CHUNK_ELEMENTS // vocabulary)
    # The first call of `checkpoint` imports torch's compiler: a third of a short audit's time.
    small = exits is not None and exits * len(targets) * vocabulary <= KEPT_ELEMENTS
    recompute = torch.is_grad_enabled() and not small
    losses = []
    for start in range(0, len(targets), tokens):
        part = (head, flat[start : start + tokens], targets[start : start + tokens])
        if recompute:
            losses.append(checkpoint(_cross_entropy, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            losses.append(_cross_entropy(*part))
    return torch.cat(losses).view_as(labels)


def _cross_entropy(
    head: Head, features: Float[Tensor, "tokens dim"], labels: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    return F.cross_entropy(wide(head(features)), labels, ignore_index=IGNORE_INDEX, reduction="none")
