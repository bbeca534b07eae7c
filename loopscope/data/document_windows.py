"""Windows that hold tokens of one document each, of a token file in which one id ends every document."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Integer

from loopscope.data.tokenfile import HEADER_BYTES, TOKENS_AT_ONCE, TokenFile
from loopscope.data.windows import Batch, Windows

NOT_COUNTED = -100
"""Label of what is left of a window where its document is over."""


class DocumentWindows(Windows):
    """Windows of `sequence` input tokens that do not run on into the next document.

    A document's first window begins with the end of the one before, so that its first token is predicted too, and its
    own end is the last label: over all windows every token of the file but the first is a label once. A last window
    that is longer than what is left of its document is filled with ends, whose labels do not count.

    Memory: 16 bytes a document.

    Args:
        token_file: begins with `end`, and has it after every document.
        sequence: tokens of a window.
        end: the id that ends a document.

    Raises:
        ValueError: the file has no document.
    """

    def __init__(self, token_file: TokenFile, sequence: int, end: int) -> None:
        self.token_file = token_file
        self.sequence = self.stride = sequence
        self.end = end
        self.ends = np.concatenate([np.zeros(0, dtype=np.int64), *_ends(token_file, end)])
        if len(self.ends) < 2:
            raise ValueError(f"{token_file.path} has no document that ends; ingest it with documents: ended")
        of_each = -(-np.diff(self.ends) // sequence)
        self.first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(of_each)])
        self.count = int(self.first[-1])

    def read(self, indices: Integer[np.ndarray, " batch"]) -> Batch:
        """Return inputs and labels of the windows with these indices, each [windows sequence]."""
        index = np.asarray(indices, dtype=np.int64)
        document = np.searchsorted(self.first, index, side="right") - 1
        starts = self.ends[document] + (index - self.first[document]) * self.sequence
        positions = starts[:, None] + np.arange(self.sequence + 1)
        stop = self.ends[document + 1][:, None]
        tokens = self.token_file.tokens[np.minimum(positions, stop)].astype(np.int64)
        labels = np.where(positions <= stop, tokens, NOT_COUNTED)
        return torch.from_numpy(tokens[:, :-1]), torch.from_numpy(labels[:, 1:])


def documents_in(token_file: TokenFile, end: int) -> int:
    """Return the documents of a token file that begins with `end` and has it after each."""
    return sum(len(found) for found in _ends(token_file, end)) - 1


def _ends(token_file: TokenFile, end: int) -> Iterator[Integer[np.ndarray, " ends"]]:
    """Where the ends stand, a stretch of the file at a time; read, for what is mapped would count as this process's."""
    kind = token_file.tokens.dtype
    for start in range(0, token_file.count, TOKENS_AT_ONCE):
        offset = HEADER_BYTES + start * kind.itemsize
        tokens = np.fromfile(token_file.path, dtype=kind, count=TOKENS_AT_ONCE, offset=offset)
        yield start + np.flatnonzero(tokens == end)
