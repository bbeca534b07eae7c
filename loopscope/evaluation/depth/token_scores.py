"""Cross-entropy and hits of every token, in chunks that never hold more than one chunk of logits.

For evaluation: no gradient, and the head only runs on tokens whose label counts. Memory: two chunks of logits (the
logits and their log-softmax), 64 MB of fp32, whatever the vocabulary and the number of loops.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.numerics import wide
from loopscope.objectives.token_loss import CHUNK_ELEMENTS, IGNORE_INDEX, Head


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
        logits = wide(head(part))
        losses.append(F.cross_entropy(logits, target, reduction="none"))
        hits.append(logits.argmax(dim=-1) == target)
    loss[counts], hit[counts] = torch.cat(losses), torch.cat(hits)
    return loss, hit
