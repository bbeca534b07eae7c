"""From tokens to text as they come: characters are held back until they are complete."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@runtime_checkable
class Tokenizer(Protocol):
    """What generation needs of a tokenizer: text to ids and back."""

    def encode(self, text: str) -> Any:
        """Return the ids of a text."""

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """Return the text of ids."""


class IncrementalDecoder:
    """Text of one row, which comes token by token.

    A token may end inside a character (bytes, byte-level BPE); what it adds is held back until the character is
    whole. Decoding starts a few tokens back, not at the beginning: a tokenizer may join a token to the one before it.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt)[-_CONTEXT:]
        self._shown = len(self._ids)  # tokens whose text is out

    def push(self, token: int) -> str:
        """Take a token; return the text that is complete now: often what this token says, sometimes nothing."""
        self._ids.append(token)
        return self._out(final=False)

    def flush(self) -> str:
        """Return what is left at the end, complete or not."""
        return self._out(final=True) if self._shown < len(self._ids) else ""

    def _out(self, final: bool) -> str:
        before = self._tokenizer.decode(self._ids[: self._shown])
        whole = self._tokenizer.decode(self._ids)
        if not final and whole.endswith(_UNFINISHED):
            return ""
        self._ids = self._ids[-_CONTEXT:] if self._shown >= 2 * _CONTEXT else self._ids
        self._shown = len(self._ids)
        if not whole.startswith(before):  # the prompt ended inside a character that is now whole
            before = before.rstrip(_UNFINISHED)
        return whole[len(before) :]


_CONTEXT = 8
"""Tokens of context that decoding starts from."""
