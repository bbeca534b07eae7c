"""p-hop induction: look back to where the current symbol stood last, take the one after it, p times over.

As Sanford, Hsu and Telgarsky define it ("Transformers, parallel computation, and logarithmic depth", arXiv
2402.09268): find(i) is the largest j <= i whose predecessor is the symbol at i, and the answer after token i is the
symbol at find applied p times. Depth of order log p is what they show to be needed and enough; Saunshi et al. (arXiv
2502.17416) train looped models on it. One hop is the induction head. Here neighbours differ, so that no hop stays
where it is, and every problem has its p hops.
"""

import string

import numpy as np
from jaxtyping import Int

from loopscope.data.tasks.base import NO_ANSWER, AbstractTask, Problems


class PHop(AbstractTask):
    """Task of hopping back `hops` times by the last occurrence of a letter. Chance is 1 in `symbols`."""

    def __init__(self, hops: int, symbols: int, width: int, everywhere: bool) -> None:
        self.hops = hops
        self.symbols = tuple(string.ascii_lowercase[:symbols])
        self.width = width
        self.everywhere = everywhere

    def draw(self, generator: np.random.Generator, count: int) -> Problems:
        kinds = len(self.symbols)
        steps = generator.integers(1, kinds, size=(count, self.width))  # never 0: neighbours differ
        steps[:, 0] = generator.integers(0, kinds, size=count)
        tokens = np.cumsum(steps, axis=1) % kinds
        answers = hop_back(tokens, self.hops, kinds)
        whole = answers[:, -1] != NO_ANSWER
        return Problems(tokens[whole], self.asked(answers[whole]))


def hop_back(tokens: Int[np.ndarray, "batch seq"], hops: int, symbols: int) -> Int[np.ndarray, "batch seq"]:
    """Return the symbol `hops` hops back from every token; `NO_ANSWER` where there is none."""
    batch, width = tokens.shape
    rows = np.arange(batch)
    latest = np.full((batch, symbols), -2)  # where each symbol stood last
    previous = np.empty_like(tokens)  # find, 0-based; -1 where the symbol is new
    for column in range(width):
        here = tokens[:, column]
        previous[:, column] = latest[rows, here] + 1
        latest[rows, here] = column
    at = np.broadcast_to(np.arange(width), tokens.shape)
    for _ in range(hops):
        at = np.where(at < 0, -1, np.take_along_axis(previous, np.maximum(at, 0), axis=1))
    return np.where(at < 0, NO_ANSWER, np.take_along_axis(tokens, np.maximum(at, 0), axis=1))
