"""Bracket matching: which bracket closes the innermost one that is still open, at a nesting that is known.

`( [ { } ]` asks for `)`. Sequences are beginnings of words of Dyck-(k, D): k kinds of brackets, nested D deep and no
deeper, reached at least once, ended by a closing bracket so that the asked one was opened some way back. Transformers
process this language with depth D + 1, or less with positions (Yao et al., "Self-Attention Networks Can Process
Bounded Hierarchical Languages", arXiv 2105.11115).
"""

import numpy as np
from jaxtyping import Bool, Int

from loopscope.data.tasks.base import NO_ANSWER, AbstractTask, Problems

PAIRS = ("()", "[]", "{}", "<>")


class Brackets(AbstractTask):
    """Task of closing brackets: random walks of the nesting, from 0 to `nesting`. Chance is 1 in `kinds`."""

    def __init__(self, nesting: int, kinds: int, width: int, everywhere: bool) -> None:
        self.nesting = nesting
        self.kinds = kinds
        self.symbols = tuple(
            pair[side] for side in (0, 1) for pair in PAIRS[:kinds]
        )  # openings, then closings
        self.width = width
        self.everywhere = everywhere

    def draw(self, generator: np.random.Generator, count: int) -> Problems:
        opens = self._walks(generator.random((count, self.width)) < 0.5)
        kind = generator.integers(0, self.kinds, size=opens.shape)
        tokens, answers = close_brackets(opens, kind, self.nesting, self.kinds)
        return Problems(tokens, self.asked(answers))

    def _walks(self, wants: Bool[np.ndarray, "batch seq"]) -> Bool[np.ndarray, "few seq"]:
        """Where brackets open, by coin flips that the bounds overrule; walks that miss the difficulty left out."""
        height = np.zeros(len(wants), dtype=np.int64)
        top = height.copy()
        opens = np.empty_like(wants)
        for column in range(self.width):
            opens[:, column] = (height == 0) | (wants[:, column] & (height < self.nesting))
            height += np.where(opens[:, column], 1, -1)
            top = np.maximum(top, height)
        chosen: np.ndarray = opens[(top == self.nesting) & (height > 0) & ~opens[:, -1]]
        return chosen


def close_brackets(
    opens: Bool[np.ndarray, "batch seq"], kind: Int[np.ndarray, "batch seq"], nesting: int, kinds: int
) -> tuple[Int[np.ndarray, "batch seq"], Int[np.ndarray, "batch seq"]]:
    """Return tokens, and after each the bracket that closes the innermost open one (`NO_ANSWER` where all are closed).

    Args:
        opens: where a bracket opens; elsewhere one closes.
        kind: of a bracket that opens; not read elsewhere.
    """
    rows = np.arange(len(opens))
    stack = np.zeros((len(opens), nesting + 1), dtype=np.int64)  # kind of the open bracket at each height
    height = np.zeros(len(opens), dtype=np.int64)
    tokens, answers = np.empty_like(kind), np.empty_like(kind)
    for column in range(opens.shape[1]):
        opening = opens[:, column]
        closed = stack[rows, height]
        height = height + np.where(opening, 1, -1)
        stack[rows[opening], height[opening]] = kind[opening, column]
        tokens[:, column] = np.where(opening, kind[:, column], kinds + closed)
        answers[:, column] = np.where(height > 0, kinds + stack[rows, height], NO_ANSWER)
    return tokens, answers
