"""Cross-entropy and hits of every token, in chunks that never hold more than one chunk of logits.

For evaluation: no gradient, and the head only runs on tokens whose label counts. One pass of it gives both. On a CPU
what follows the head goes over a few rows at a time, which are still in its cache: the largest logit, the sum of powers
beside it, and whether the label's logit is the largest. Memory: one chunk of logits, 40 MB of fp32, whatever the
vocabulary and the number of loops.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.numerics import powers_of, wide
from loopscope.objectives.token_loss import CHUNK_ELEMENTS, IGNORE_INDEX, Head

CACHED_ELEMENTS = 2**19
"""Logits that are looked at together: 2 MB of fp32."""


@torch.no_grad()
def token_scores(
    head: Head,
    features: Float[Tensor, "batch seq dim"],
    labels: Int[Tensor, "batch seq"],
    vocabulary: int,
) -> tuple[Float[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """Return the cross-entropy of every token in nats, and whether its label is the likeliest token.

    In a tie the first of the likeliest counts. Where the label is ignored: 0 and False.

    Args:
        vocabulary: the head's output width, which sizes the chunks.
    """
    loss = torch.zeros(labels.shape, dtype=wide(features[:0]).dtype, device=labels.device)
    hit = torch.zeros_like(labels, dtype=torch.bool)
    counts = labels != IGNORE_INDEX
    rows, targets = features[counts], labels[counts].long()
    tokens = max(1, CHUNK_ELEMENTS // vocabulary)
    losses, hits = [loss[:0, 0]], [hit[:0, 0]]
    for part, target in zip(rows.split(tokens), targets.split(tokens), strict=True):
        if not len(target):
            continue
        logits = head(part)
        few = max(1, CACHED_ELEMENTS // vocabulary) if logits.device.type == "cpu" else len(part)
        for own, label in zip(logits.split(few), target.split(few), strict=True):
            one, other = _of_few(wide(own), label)
            losses.append(one)
            hits.append(other)
    loss[counts], hit[counts] = torch.cat(losses), torch.cat(hits)
    return loss, hit


def _of_few(
    logits: Float[Tensor, "tokens vocab"], labels: Int[Tensor, " tokens"]
) -> tuple[Float[Tensor, " tokens"], Bool[Tensor, " tokens"]]:
    """Cross-entropies and hits of some tokens."""
    highest = logits.amax(dim=-1, keepdim=True)
    own = logits.gather(1, labels[:, None])
    loss = powers_of(logits - highest).sum(dim=-1).log() - (own - highest).squeeze(1)
    hit = (own == highest).squeeze(1)
    # Of several largest ones the first counts; finding its place is slow, so only where the label has one.
    hit[hit.clone()] = logits[hit].argmax(dim=-1) == labels[hit]
    return loss, hit
