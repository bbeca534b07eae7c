"""Shortlist margin: the logit margin over a few tokens of the vocabulary, per sequence.

At loop 1 some of a sequence's tokens get a whole readout. The vocabulary entries that are likeliest there, on
average, are the sequence's shortlist; every loop scores these alone. A token read alone (generation) is its own
sample. Sequences do not share shortlists, so a sequence's exit does not depend on its neighbours.

Cost per token: 1 / `STRIDE` of a readout at loop 1, and `entries` / vocab of the head's product at every loop. Memory:
the head as a matrix, kept once per model (features × vocab numbers), and entries × features numbers per sequence
while a loop is scored.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept, Sizes
from loopscope.evaluation.exits.rules.head_matrix import HeadMatrix
from loopscope.evaluation.exits.rules.largest import two_largest
from loopscope.evaluation.exits.rules.look import Look
from loopscope.numerics import wide
from loopscope.recurrence import AbstractLoopedLM, unroll

STRIDE = 16
"""One token in so many is read whole at loop 1."""
ENTRIES = 256
"""Vocabulary entries of a shortlist."""


class ShortlistMargin(AbstractExitRule):
    """Leaves where the likeliest token of the shortlist is far ahead of the next one there.

    Args:
        entries: size of the shortlist; the whole vocabulary where that is smaller.
    """

    name = "shortlist-margin"
    needs = ("features",)
    units = ("sequence",)  # the list is drawn from all of a sequence's tokens, later ones too

    def __init__(self, entries: Any = ENTRIES) -> None:
        if isinstance(entries, bool) or not isinstance(entries, int) or entries < 2:
            raise ValueError(f"entries is {entries!r}; a shortlist has 2 or more, to have a margin")
        self.entries = entries
        self._heads: WeakKeyDictionary[AbstractLoopedLM, HeadMatrix] = WeakKeyDictionary()

    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        model, features = look.state.model, look.features
        shortlist = before.get("shortlist")
        if shortlist is None:
            shortlist = self._shortlist(model, features)
        rows, bias = self._head(model, features).entries(shortlist)
        logits = torch.baddbmm(bias[:, None], features, rows.transpose(1, 2))
        first, second = wide(two_largest(logits.flatten(0, 1))).unbind(dim=1)
        return (first - second).view(features.shape[:2]), {"shortlist": shortlist}

    def look_flops(self, loop: int, sizes: Sizes) -> float:
        sampled = 2 * sizes.features * sizes.vocab * -(-sizes.sequence // STRIDE) / sizes.sequence
        few = 2 * sizes.features * min(self.entries, sizes.vocab)
        return sizes.coda + few + (sampled if loop == 1 else 0)

    @torch.no_grad()
    def check_model(self, model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> None:
        self._head(model, next(unroll(model, input_ids[:1], 1)).features())

    def _shortlist(
        self, model: AbstractLoopedLM, features: Float[Tensor, "batch seq features"]
    ) -> Int[Tensor, "batch entries"]:
        # Counted back from the last token, which has seen most of the text.
        sample = features.flip(1)[:, ::STRIDE]
        likely = wide(model.head(sample)).softmax(dim=-1).mean(dim=1)
        return likely.topk(min(self.entries, likely.shape[1]), dim=1).indices

    def _head(self, model: AbstractLoopedLM, features: Float[Tensor, "batch seq features"]) -> HeadMatrix:
        known = self._heads.get(model)
        if known is None or not known.is_of(model, features):
            known = self._heads[model] = HeadMatrix.of(model, features)
        return known
