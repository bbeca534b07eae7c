"""One text for models of different tokenizers: each reads the whole of it in its own tokens, window after window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from loopscope.data.config import DataConfig
from loopscope.data.corpora import build_corpus, cap_bytes
from loopscope.jobs.opened import OpenedModel
from loopscope.jobs.text import TextWindows, counted, hash_of, reading_tokenizer, text_pieces, trained_length

SHARED_BYTES = 250_000
"""Of a text that no run was validated on: about what 256 windows of 256 tokens hold."""
LONGEST_WINDOW = 256
"""Tokens of a window where nothing says: a model may have positions for more text than there is."""


@dataclass(frozen=True)
class SharedText:
    """A stretch of text that several models are compared on.

    Attributes:
        title: what it is, in words.
        text: all of it.
    """

    title: str
    text: str

    @property
    def hash(self) -> str:
        """SHA-256 of the text, as `text_hash` has it of a run's."""
        return hash_of([self.text])

    def windows(self, opened: OpenedModel, length: int | None = None) -> TextWindows:
        """Return all of the text in a model's own tokens; what does not fill its last window is left out.

        Args:
            length: tokens of a window; None: the trained length, at most `LONGEST_WINDOW`.

        Raises:
            ValueError: the text is shorter than one window, or the model has no tokenizer.
        """
        length = length or min(trained_length(opened), LONGEST_WINDOW)
        tokenizer, note = reading_tokenizer(opened)
        ids = np.asarray(tokenizer.encode(self.text), dtype=np.int64)
        count = (len(ids) - 1) // length
        if count < 1:
            raise ValueError(
                f"{self.title} is {len(ids)} tokens of {opened.path}, shorter than one window of {length} and the "
                "token after it; use more text, more --windows or a smaller --length"
            )
        tokens = torch.from_numpy(ids[: count * length + 1])
        rows, labels = (part.reshape(count, length) for part in (tokens[:-1], tokens[1:]))
        return counted(opened, TextWindows(rows, labels, math.nan, self.title + note))

    def start(self, opened: OpenedModel, windows: int, length: int | None = None) -> "SharedText":
        """Return the beginning of the text, about so many windows of a model long."""
        found = self.windows(opened, length)
        share = min(1.0, windows / len(found))
        cut = "".join(cap_bytes([self.text], math.ceil(share * len(self.text.encode("utf-8"))) + 8))
        return replace(self, text=cut)


def shared_text(data: str | None, of_runs: Sequence[DataConfig]) -> SharedText:
    """Return what models are compared on: the text asked for, else the first run's validation text, else `stdlib`.

    Raises:
        ValueError: the text cannot be read, or is tokens or a task's symbols, which other models do not have.
    """
    if data is None and of_runs:
        config = of_runs[0]
        if config.corpus == "task":
            raise ValueError(
                f"a run here was trained on {config.title}, whose symbols the tokenizers of other models do not have; "
                "compare runs of one task with each other"
            )
        pieces = cap_bytes(build_corpus(config).validation(), config.max_validation_bytes)
        return SharedText(config.title, "".join(pieces))
    if data is not None and data.endswith(".safetensors"):
        raise ValueError(
            f"data is {data}, which holds one tokenizer's ids; models of other tokenizers read text: give text files"
        )
    name = data or "stdlib"
    return SharedText(f"text of {name}", "".join(cap_bytes(text_pieces(name), SHARED_BYTES)))
